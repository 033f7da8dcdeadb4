"""Rollway: immutable releases for fleets of systemd hosts. The rooms of this package: docs/architecture.md."""
