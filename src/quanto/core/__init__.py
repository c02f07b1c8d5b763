"""Errors, registries, configuration, digests, manifests, stores and random streams; knows nothing about markets."""
