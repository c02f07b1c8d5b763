"""The frame around a stage, executors and MLflow sync: what runs code, not what it computes."""
