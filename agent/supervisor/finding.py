"""What a probe has found, and how the words of an app are shown."""

from msgspec import Struct


class Finding(Struct, frozen=True, kw_only=True):
    ok: bool
    detail: str = ""
    silent: bool = False
    """Nobody answered at all."""
    remark: str = ""
    """What a person should know although all is well."""


def one_line(text: str, characters_max: int) -> str:
    """On one line, without anything a terminal obeys, and no longer than that."""
    return "".join(c if c.isprintable() else " " for c in text[:characters_max]).strip()
