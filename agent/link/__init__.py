"""The one WebSocket between an agent and a coordinator, its TLS, and the fetching of larger things beside it."""
