"""Rollway: immutable releases for fleets of systemd hosts. The rooms of this package: docs/architecture.md."""

__version__ = "0.1.0"
