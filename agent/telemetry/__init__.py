"""What a role of Rollway says of itself: events as JSON lines, and the one writer of its standard output."""
