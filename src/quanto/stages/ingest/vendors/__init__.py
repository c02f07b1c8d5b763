"""The vendors: one module each, all behind the port of `quanto.stages.ingest.vendor`."""
