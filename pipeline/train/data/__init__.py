"""Training data: which samples in which order, read ahead and brought into batches."""
