"""Several roles on one machine, as processes of their own: the small case of the same path, not a second one."""
