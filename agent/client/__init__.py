"""What a person's machine knows of a coordinator: where it is, and a typed client of its API."""
