"""What frames show of their spikes: the lag, the registration, and whose spikes they are."""
