"""Bytes to objects and back, without I/O: every format that crosses a process boundary."""
