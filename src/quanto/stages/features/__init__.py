"""Canonical data to leak-free features."""
