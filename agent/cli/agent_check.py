"""`rollway agent check`: is this host's agent alive, has it what it needs, what is not right, what to do."""

import argparse
from typing import Final

import msgspec

from agent.cli.output import show, show_json
from agent.cli.this_host import AGENT_FILE, add_agent, chosen_agent, settings_read
from agent.errors import RollwayError, SettingsError
from agent.host import checks
from agent.host.checks import Finding
from agent.linux import cgroup
from agent.model.roles import AgentSettings
from agent.wire.control import AgentStatus, Row

SUMMARY: Final = "See whether this host's agent is alive and has what it needs."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", dest="as_json", help="Print JSON, for scripts.")
    add_agent(parser)


def run(arguments: argparse.Namespace) -> int:
    """Exit 0: all is well; 1: something is not right; 2: the settings are wrong; 6: no agent answers."""
    findings, code = look(arguments)
    if arguments.as_json:
        show_json([{**msgspec.structs.asdict(finding), "well": finding.well} for finding in findings])
        return code
    for finding in findings:
        show(f"[{'+' if finding.well else '-'}] {finding.check}: {finding.found}")
        if not finding.well:
            show(f"      {finding.what_to_do}")
    return code


def look(arguments: argparse.Namespace) -> tuple[list[Finding], int]:
    """What is found, and the exit code of it."""
    try:
        chosen, unread = settings_read(arguments.config)
    except SettingsError as error:
        return [Finding(check="settings", found=error.error, what_to_do=error.what_to_do)], error.exit_code
    findings, code = [_settings(chosen, unread)], 0
    try:
        agent = chosen_agent(arguments)
        status = agent.ask("GET", "/v1/status", AgentStatus)
        findings += [checks.agent(status), checks.link(status), *_apps(status), *checks.pins(status)]
        findings += checks.starts(agent.ask("GET", "/v1/instances", list[Row]))
    except RollwayError as error:
        findings.append(Finding(check="agent", found=error.error, what_to_do=error.what_to_do))
        code = error.exit_code
    if unread is None:
        findings += checks.of_settings(chosen)
    findings += checks.of_machine(chosen)
    return findings, code or int(not all(finding.well for finding in findings))


def _settings(chosen: AgentSettings, unread: OSError | UnicodeError | None) -> Finding:
    """What is asked below by settings that are not known is not asked at all: its answers would mislead."""
    match unread:
        case None:
            return Finding(check="settings", found=f"state in {chosen.state_dir}, sockets in {chosen.run_dir}")
        case FileNotFoundError():
            return Finding(
                check="settings",
                found=f"there is no {AGENT_FILE}: this host has joined no fleet",
                what_to_do="`rollway agent join TOKEN`, with what `rollway host token` printed at the coordinator.",
            )
        case PermissionError():
            found = f"cannot read {AGENT_FILE}: {unread.strerror}; coordinator, clock and certificate are not looked at"
            return Finding(check="settings", found=found, what_to_do="Ask as root.")
        case _:
            return Finding(check="settings", found=f"cannot read {AGENT_FILE}: {unread}", what_to_do="Correct it.")


def _apps(status: AgentStatus) -> list[Finding]:
    unit = cgroup.of_apps(status.pid)
    return [] if unit is None else [checks.apps(is_started=cgroup.is_started(unit))]
