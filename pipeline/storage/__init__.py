"""Where files lie: a local folder, or a bucket of an object store."""
