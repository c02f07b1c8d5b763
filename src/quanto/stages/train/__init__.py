"""Features to a policy artefact."""
