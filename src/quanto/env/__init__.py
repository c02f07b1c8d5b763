"""The portfolio environment: pure step kernel, batched VecEnv, Gymnasium shell, rewards."""
