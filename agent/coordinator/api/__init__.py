"""The HTTP API: one module per noun, one table of routes with the role beside each (`routes`)."""
