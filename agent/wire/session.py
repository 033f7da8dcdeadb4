"""What of the link's frames is acted on: each side's memory of the other, without a transport.

Rules: frames may be lost, repeated and, over several connections, reordered; both directions carry levels, so only the
newest of a kind counts. An assignment is newer by (epoch, generation), per app and environment; a report by its
sequence within one connection. Whoever has seen an epoch refuses every coordinator of an older one.
Used by both ends of the link and by the simulation. Not handled here: what host or coordinator do with what is new.
"""

from msgspec import Struct
from msgspec.structs import replace

from agent.errors import RefusedError
from agent.model.assignment import Assignment, HostReport
from agent.model.ids import AppName, EnvironmentName
from agent.wire.messages import PROTOCOL, Welcome

Key = tuple[AppName, EnvironmentName]


def key_of(assignment: Assignment) -> Key:
    return assignment.app, assignment.environment


def speaks(protocol: int) -> bool:
    """Whether a peer of that version is understood: one older and one newer are, for it speaks its N-1."""
    return protocol >= 1 and abs(protocol - PROTOCOL) <= 1


class AgentSide(Struct, frozen=True, kw_only=True):
    """What an agent remembers of all coordinators it spoke to in its life."""

    epoch: int = 0
    newest: dict[Key, tuple[int, int]] = {}
    """(epoch, generation) of the newest assignment taken, per app and environment."""

    def welcomed(self, welcome: Welcome) -> "AgentSide":
        """A connection begins. Raises `RefusedError` where this coordinator must not be listened to."""
        if not speaks(welcome.protocol):
            raise RefusedError(
                f"the coordinator speaks version {welcome.protocol} of the link, this agent version {PROTOCOL}",
                "Upgrade the older of the two.",
            )
        if welcome.epoch < self.epoch:
            raise RefusedError(
                f"the coordinator is of epoch {welcome.epoch}, and one of epoch {self.epoch} has spoken already",
                "Stop the older coordinator; it was replaced, or was started from an old copy of its database.",
            )
        return replace(self, epoch=welcome.epoch)

    def assigned(self, assignment: Assignment) -> "AgentSide | None":
        """The memory after taking `assignment`; None to drop it: seen already, older, of a past epoch."""
        age = (assignment.epoch, assignment.generation)
        if assignment.epoch < self.epoch or age <= self.newest.get(key_of(assignment), (0, 0)):
            return None
        return replace(self, newest={**self.newest, key_of(assignment): age})


class CoordinatorSide(Struct, frozen=True, kw_only=True):
    """What a coordinator remembers of one connection of one host."""

    sequence: int = -1
    """Of the newest report taken."""
    outbox: dict[Key, Assignment] = {}
    """Assignments that wait to be sent: the newest alone of each app and environment."""

    def reported(self, report: HostReport) -> "CoordinatorSide | None":
        """The memory after taking `report`; None if it is to be dropped: seen already, or older."""
        return replace(self, sequence=report.sequence) if report.sequence > self.sequence else None

    def assign(self, assignment: Assignment) -> "CoordinatorSide":
        """The memory with `assignment` to be sent, unless a newer one waits."""
        waiting = self.outbox.get(key_of(assignment))
        if waiting is not None and (waiting.epoch, waiting.generation) > (assignment.epoch, assignment.generation):
            return self
        return replace(self, outbox={**self.outbox, key_of(assignment): assignment})

    def send_next(self) -> "tuple[CoordinatorSide, Assignment | None]":
        """The memory without the assignment that has waited longest, and that assignment."""
        if not self.outbox:
            return self, None
        first, *rest = self.outbox.items()
        return replace(self, outbox=dict(rest)), first[1]
