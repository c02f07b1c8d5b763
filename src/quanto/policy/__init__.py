"""The policy artefact (load, save, act without torch) and rule-based baselines."""
