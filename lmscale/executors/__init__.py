"""Where trajectories run."""
