"""Training: samples, loader, the loop, checkpoints, and start-up on several processes."""
