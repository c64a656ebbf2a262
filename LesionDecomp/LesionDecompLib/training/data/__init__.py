"""Labeled slices: made from CT volumes, read, drawn and handed to the training loop."""
