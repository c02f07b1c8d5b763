"""The promoted policy replayed through execution and risk."""
