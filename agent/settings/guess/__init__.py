"""What `rollway init` sees in a folder, and the rollway.toml that follows from it. Pure: files come in as text."""
