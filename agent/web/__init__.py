"""HTTP plumbing that both servers share: bounds, errors as JSON, health."""
