"""Quanto: a reproducible workflow from market data to governed execution."""
