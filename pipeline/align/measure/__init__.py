"""What the frames show of their spikes: lag, place, and whose they are."""
