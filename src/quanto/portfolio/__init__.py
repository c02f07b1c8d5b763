"""Constraints, costs, accounting, metrics and significance: what is true of any portfolio."""
