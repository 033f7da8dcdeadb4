"""One app and environment in the fleet: which host moves next, when to stop, how to come back."""
