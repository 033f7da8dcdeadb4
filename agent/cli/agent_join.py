"""`rollway agent join`: a host comes into a fleet. Read with argparse: a host has neither click nor rich."""

import argparse
import sys
from pathlib import Path
from typing import Final

from agent.cli.output import remark, show, show_json
from agent.errors import UsageError
from agent.model.roles import AGENT_STATE_DIR
from agent.wire.hosttoken import TOKEN_BYTES_MAX

CONFIG: Final = "/etc/rollway/agent.toml"
_EPILOG: Final = """\
The host makes a key of its own, which stays here, and gets a certificate for it. The token is good for one host; the
same host may show it again until it expires, so after an error just run it again.

examples:
  rollway agent join rollway-host-1.eyJ…
  rollway agent join - < token            the token stays out of the list of processes
  rollway agent join --token-file token --name web1
"""


SUMMARY: Final = "Bring this host into a fleet, by a token that `rollway host token` printed."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("token", metavar="TOKEN", nargs="?", help="the token; - reads it from standard input")
    parser.add_argument("--token-file", metavar="FILE", help="read the token from a file")
    parser.add_argument("--name", help="the host's name in the fleet; left out: its hostname")
    parser.add_argument("--config", default=CONFIG, help="the agent.toml to write (default: %(default)s)")
    parser.add_argument("--state-dir", default=AGENT_STATE_DIR, help="the agent's state folder (default: %(default)s)")
    parser.add_argument(
        "--coordinator",
        metavar="URL",
        action="append",
        default=[],
        help="reach the coordinator here, not where the token says; may be given more than once",
    )
    parser.add_argument("--json", dest="as_json", action="store_true", help="print JSON, for scripts")


def run(arguments: argparse.Namespace) -> int:
    """Join as the words of the command say; gives its exit code."""
    config = Path(arguments.config).absolute()
    text = _token(arguments.token, arguments.token_file)
    try:
        import anyio  # noqa: PLC0415 - so that --help needs nothing

        from agent.host.join import join  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("agent"):
            raise
        raise UsageError(
            f"joining needs the library {error.name}, which is not installed here", "Install it: pip install 'rollway'."
        ) from error

    async def main() -> None:
        member = await join(
            text,
            name=arguments.name,
            config=config,
            state_dir=arguments.state_dir,
            coordinators=arguments.coordinator,
        )
        if arguments.as_json:
            show_json(member)
            return
        show(f"{member.host} has joined, for {', '.join(member.environments)}; {member.config} is written")
        if member.not_served:
            remark(f"{member.config} leaves out what it may serve: {', '.join(member.not_served)}. Add it there.")
        remark("Start its two units: systemctl enable --now rollway-agent rollway-apps")

    anyio.run(main)
    return 0


def _token(word: str | None, file: str | None) -> str:
    if (word is None) == (file is None):
        raise UsageError("give the token, or --token-file, and not both", "See `rollway agent join --help`.")
    if file is not None:
        try:
            with Path(file).open() as opened:
                return opened.read(TOKEN_BYTES_MAX + 1)
        except (OSError, UnicodeError) as error:
            raise UsageError(f"cannot read {file}: {error}", "Name a file with the token in it.") from error
    return sys.stdin.read(TOKEN_BYTES_MAX + 1) if word == "-" else word or ""
