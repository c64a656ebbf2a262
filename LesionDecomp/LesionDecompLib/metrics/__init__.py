"""Measures of agreement that training and evaluation share."""
