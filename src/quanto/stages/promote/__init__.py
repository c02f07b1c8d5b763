"""Verdicts to a promotion record and a model card."""
