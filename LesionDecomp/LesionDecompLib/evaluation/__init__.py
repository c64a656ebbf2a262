"""Evaluation against lung contours, pixel masks and image labels."""
