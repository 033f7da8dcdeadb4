"""One app and environment on one host: from what runs to what is assigned, never fewer ready than before."""
