"""Whether a descriptor can be read or written, whatever its number: select(2) stops at 1,024."""

import select


def is_readable(fd: int, within_s: float = 0) -> bool:
    return _is(fd, select.POLLIN, within_s)


def is_writable(fd: int, within_s: float = 0) -> bool:
    return _is(fd, select.POLLOUT, within_s)


def _is(fd: int, event: int, within_s: float) -> bool:
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(max(0, within_s) * 1000))
