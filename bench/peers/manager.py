"""Stands in for systemd: hears sd_notify(3), and keeps descriptors until they are taken out again.

A process of its own, as PID 1 is. Word: the name of its socket in the abstract namespace; it says when that is there.
"""

import os
import resource
import socket
import sys

DATAGRAM_BYTES = 1 << 16
FDS_A_MESSAGE = 8


def main(name: str) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kept: dict[str, list[int]] = {}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0{name}")
        print("hears", flush=True)
        while True:
            said, fds, _, _ = socket.recv_fds(heard, DATAGRAM_BYTES, FDS_A_MESSAGE)
            words = dict(line.partition("=")[::2] for line in said.decode().splitlines())
            if "FDSTORE" in words:
                kept.setdefault(words["FDNAME"], []).extend(fds)
                fds = []
            if "FDSTOREREMOVE" in words:
                fds += kept.pop(words["FDNAME"], [])
            for fd in fds:  # taken out; or of a barrier, which is lifted so
                os.close(fd)


if __name__ == "__main__":
    main(*sys.argv[1:])
