"""A package, so that worker processes can import test modules by name: some distribution installs a `tests` of its own."""
