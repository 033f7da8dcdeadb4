"""What one instance is started with: the release's folder and config, the slot's sockets, the policies of its type.

Pure: everything comes in as arguments. Secrets are already opened; they leave in the `Launchable` only.
"""

from collections.abc import Mapping
from typing import Final

from agent.decisions.swap.state import Launch
from agent.errors import VerificationError
from agent.host.releases import Runnable
from agent.host.routes import Slot
from agent.model.address import Address, parse_address
from agent.model.assignment import Assignment
from agent.model.process import ProcessType
from agent.model.release import RunOrder
from agent.supervisor.launchable import AdminCommand, InstanceKey, Launchable, ReadConfig, WatchedCommand
from agent.supervisor.records import Kept, Record
from agent.wire.runs import Ask

WITHOUT_BYTECODE: Final = {"PYTHONDONTWRITEBYTECODE": "1"}
"""A root's Python writes `__pycache__` into read-only folders too; the release would then not be what was built."""


def process_type(runnable: Runnable, launch: Launch) -> ProcessType:
    found = runnable.release.spec.process(launch.process)
    if found is None:
        raise VerificationError(f"release {runnable.release.name} has no process type {launch.process}")
    return found


def addresses(process: ProcessType, assignment: Assignment, host_address: str | None) -> tuple[Address, ...]:
    """Where `process` listens on this host: `0.0.0.0` is the host's own address when it has one."""
    try:
        listed = [parse_address(text) for text in assignment.listen.get(process.name, process.listen)]
    except ValueError as error:
        raise VerificationError(f"cannot tell where {process.name} listens: expected {error}") from error
    return tuple(
        Address(host_address, address.port)
        if host_address is not None and address.host == "0.0.0.0"  # noqa: S104 - compared, not bound
        else address
        for address in listed
    )


def launchable(
    launch: Launch,
    *,
    assignment: Assignment,
    runnable: Runnable,
    process: ProcessType,
    config: Mapping[str, str],
    listen: tuple[Address, ...],
    slot: Slot,
) -> Launchable:
    return Launchable(
        key=InstanceKey(assignment.app, assignment.environment, launch.process, launch.slot),
        release=launch.release,
        type=process,
        cwd=str(runnable.tree),
        config={**WITHOUT_BYTECODE, **config},
        addresses=tuple(map(str, listen)),
        listeners=slot.listeners,
        port=slot.port,
        target=slot.target,
        linger_ms=assignment.linger_ms,
    )


def adoptable(record: Record, kept: Kept, slot: Slot, config: ReadConfig) -> Launchable:
    """What an earlier agent started, with the sockets that it holds."""
    return Launchable(
        key=record.key,
        release=kept.release,
        type=kept.type,
        cwd=kept.cwd,
        config=config,
        addresses=kept.addresses,
        listeners=slot.listeners,
        port=kept.port,
        target=kept.target,
        linger_ms=kept.linger_ms,
    )


def admin_command(assignment: Assignment, runnable: Runnable, config: Mapping[str, str]) -> AdminCommand:
    """The release command, in the environment that the instances of the release get."""
    command = runnable.release.spec.release
    if command is None:
        raise VerificationError(f"release {runnable.release.name} has no release command")
    return AdminCommand(
        app=assignment.app,
        environment=assignment.environment,
        release=runnable.release.name,
        command=command.command,
        cwd=str(runnable.tree),
        config={**WITHOUT_BYTECODE, **config},
        timeout_ms=command.timeout_ms,
        limits=command.limits,
        sandbox=command.sandbox,
    )


def watched_command(
    order: RunOrder, ask: Ask, runnable: Runnable, like: ProcessType, config: Mapping[str, str]
) -> WatchedCommand:
    """What an operator runs, in the environment that the instances of the release get, and with its terminal's kind."""
    terminal = {"TERM": ask.term} if ask.size is not None else {}
    return WatchedCommand(
        app=order.app,
        environment=order.environment,
        release=runnable.release.name,
        words=order.words,
        cwd=str(runnable.tree),
        config={**WITHOUT_BYTECODE, **config, **terminal},
        limits=like.limits,
        sandbox=like.sandbox,
        size=(ask.size.rows, ask.size.columns) if ask.size is not None else None,
        takes_input=ask.stdin,
    )
