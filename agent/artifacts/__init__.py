"""From a commit to a folder that runs: export, build, archive, unpack, verify. Files and bytes, no network.

Everything here is synchronous and may take long: an event loop calls it in a thread.
"""
