"""`rollway agent check`: is this host's agent alive, has it what it needs, what is not right, what to do."""

import argparse
from typing import Final

import msgspec

from agent.cli.output import show, show_json
from agent.cli.this_host import add_agent, chosen_agent, settings
from agent.errors import RollwayError, SettingsError
from agent.host import checks
from agent.host.checks import Finding
from agent.wire.control import AgentStatus

SUMMARY: Final = "See whether this host's agent is alive and has what it needs."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", dest="as_json", help="Print JSON, for scripts.")
    add_agent(parser)


def run(arguments: argparse.Namespace) -> int:
    """Exit 0: all is well; 1: something is not right; 2: the settings are wrong; 6: no agent answers."""
    findings, code = _findings(arguments)
    if arguments.as_json:
        show_json([{**msgspec.structs.asdict(finding), "well": finding.well} for finding in findings])
        return code
    for finding in findings:
        show(f"[{'+' if finding.well else '-'}] {finding.check}: {finding.found}")
        if not finding.well:
            show(f"      {finding.what_to_do}")
    return code


def _findings(arguments: argparse.Namespace) -> tuple[list[Finding], int]:
    try:
        chosen = settings(arguments.config)
    except SettingsError as error:
        return [Finding(check="settings", found=error.error, what_to_do=error.what_to_do)], error.exit_code
    findings, code = [Finding(check="settings", found=f"state in {chosen.state_dir}, sockets in {chosen.run_dir}")], 0
    try:
        status = chosen_agent(arguments).ask("GET", "/v1/status", AgentStatus)
        findings += [checks.agent(status), checks.link(status)]
    except RollwayError as error:
        findings.append(Finding(check="agent", found=error.error, what_to_do=error.what_to_do))
        code = error.exit_code
    findings += checks.look(chosen)
    return findings, code or int(not all(finding.well for finding in findings))
