"""Published network architectures, written anew; each folder states origin and licence."""
