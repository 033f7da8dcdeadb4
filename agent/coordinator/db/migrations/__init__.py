"""Migrations, oldest first; each is written once and never changed."""
