"""The machine: whole files, locks, cores, memory, progress."""
