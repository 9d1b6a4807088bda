"""The staged jobs, in the order data flows: simulate, align, voxelize, train, evaluate, restore."""
