"""Evidence to one verdict per tier."""
