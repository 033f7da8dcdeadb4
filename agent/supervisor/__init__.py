"""Keeps instances running on one host: the shell around `decisions.process`. Knows nothing of releases or traffic."""
