"""A policy judged out of sample beside its baselines."""
