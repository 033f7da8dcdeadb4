"""How the first operator gets in: whoever can read the coordinator's own state on its machine is an admin."""

from pathlib import Path

import msgspec

from agent.coordinator import identity
from agent.coordinator.server import BOOTSTRAP
from agent.errors import NotFoundError, RefusedError, UsageError
from agent.linux import atomic
from agent.model.roles import CoordinatorSettings


def write(settings: CoordinatorSettings, folder: Path) -> Path:
    """Write a client.toml with the first token, and the CA's certificate beside it.

    Raises NotFoundError, RefusedError where one of another coordinator is there, UsageError.
    """
    source = Path(settings.state_dir) / BOOTSTRAP
    try:
        token = atomic.read(source).decode().strip()
        authority = atomic.read(Path(settings.tls.ca))
    except FileNotFoundError as error:
        raise NotFoundError(
            f"there is no {error.filename}", "Start the coordinator once: it makes its authority and the first token."
        ) from None
    except (OSError, UnicodeError) as error:
        raise UsageError(f"cannot read the coordinator's state: {error}", "Run it as root.") from error
    target = folder / "client.toml"
    values = {"coordinator": identity.urls(settings)[0], "token": token, "ca": "ca.pem"}
    lines = "".join(f"{key} = {msgspec.json.encode(value).decode()}\n" for key, value in values.items())
    if target.exists() and target.read_text() != lines:
        raise RefusedError(
            f"there is a {target} already, for another coordinator", "Move it, or name another --output."
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    atomic.write_atomically(folder / "ca.pem", authority, mode=0o644)
    atomic.write_atomically(target, lines.encode())
    return target
