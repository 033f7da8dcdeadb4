"""Where builds and releases are kept for ever: create once, read by name, never overwrite."""
