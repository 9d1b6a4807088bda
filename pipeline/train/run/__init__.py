"""The run folder: checkpoints, metrics, TensorBoard, Weights & Biases."""
