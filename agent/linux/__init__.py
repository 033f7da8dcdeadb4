"""The syscall room: the only one that speaks to the kernel in its own words; each module can be used alone."""
