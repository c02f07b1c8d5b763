"""Vendor bytes to typed vendor records."""
