"""One instance: launched, probed, restarted, drained."""
