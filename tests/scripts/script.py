"""The grammar of a script: commands, `----`, and what was decided; blank lines between, `#` for the reader."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

RULE = "----"


class Block(NamedTuple):
    """Text for the reader, or one command (of several lines, perhaps) and what it leads to."""

    comment: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    outcome: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join(self.comment or (*self.command, RULE, *self.outcome))


def parse(text: str) -> Iterator[Block]:
    for paragraph in text.strip().split("\n\n"):
        lines = tuple(line.rstrip() for line in paragraph.splitlines() if line.strip())
        if all(line.startswith("#") for line in lines):
            yield Block(comment=lines)
        elif RULE in lines:
            rule = lines.index(RULE)
            yield Block(command=lines[:rule], outcome=lines[rule + 1 :])
        else:
            yield Block(command=lines)


def play(text: str, perform: Callable[[tuple[str, ...]], list[str]]) -> str:
    """The script with the outcomes that `perform` gives."""
    played = (
        block if block.comment else block._replace(outcome=tuple(perform(block.command)) or ("nothing",))
        for block in parse(text)
    )
    return "\n\n".join(str(block) for block in played) + "\n"
