"""Ways to a sharp frame, behind one contract that `evaluate` and `restore` share."""
