"""`rollway dev`: a working tree run on this machine through the agent's own supervisor, without an agent."""
