"""Training data: samples in their order, read ahead and brought into batches."""
