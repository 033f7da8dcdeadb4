"""Where an actor dies: it looks at its fuse before it stores a change and before each thing that it then does."""


class Fuse:
    """`looks` counts the places at which its owner could have died so far."""

    def __init__(self) -> None:
        self.looks = 0
        self._end: int | None = None

    def light(self, looks: int) -> None:
        """Burn out at that look from now."""
        self._end = self.looks + looks

    def put_out(self) -> None:
        self._end = None

    def burns_out(self) -> bool:
        self.looks += 1
        return self.looks == self._end
