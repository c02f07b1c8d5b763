"""Vendor records to one canonical truth with lineage."""
