"""Forms of weights, and reading them: checkpoints of a run, exported models."""
