"""Which instance the next connection reaches: the kernel's group of sockets, and drivers of load balancers."""
