"""The quanto command: what people type."""
