"""The way out of a terminal whose every key is the command's: `~.` at the beginning of a line, as ssh has it."""

from typing import Final

_TILDE: Final = ord("~")
_DOT: Final = ord(".")
_ENTER: Final = b"\r\n"


class Escape:
    """What was typed so far, as far as it matters. `~~` is one tilde; `~` before anything else is itself."""

    def __init__(self) -> None:
        self.left = False
        self._at_start, self._held = True, False

    def pass_on(self, typed: bytes) -> bytes:
        """What of it is for the command; nothing more once it is `left`."""
        passed = bytearray()
        for key in typed:
            if self._at_start and not self._held and key == _TILDE:
                self._held = True
                continue
            if self._held and key == _DOT:
                self.left = True
                break
            if self._held and key != _TILDE:
                passed.append(_TILDE)
            passed.append(key)
            self._at_start, self._held = key in _ENTER, False
        return bytes(passed)
