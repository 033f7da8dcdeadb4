"""`coordinator.toml`: one coordinator. An empty file is a whole one: every key has a default."""

from typing import Final

from agent.model.roles import COORDINATOR_STATE_DIR, CoordinatorSettings
from agent.settings.kinds import ADDRESS, COORDINATOR_URL, FILE_PATH, STRING, Kind, duration, list_of, text_where
from agent.settings.tables import NOT_SUPPORTED, Schema, Table, read_toml
from agent.settings.tls import tls_files

SCHEMA: Final = Schema(
    known={"": "listen advertise state_dir database store", "tls": "ca certificate key", "singleton": "lease"},
    planned={"": "retention limits"},
)
_LEASE: Final = duration("5s")
_DATABASE: Final = "sqlite:///"
_STORE: Final = "file://"
_PLANNED: Final = ("postgres:", "postgresql:", "postgresql+", "s3:")


def load_coordinator(text: str, file: str) -> CoordinatorSettings:
    """The coordinator that `text` sets up. Raises SettingsError."""
    root = read_toml(text, file, SCHEMA)
    default = CoordinatorSettings.below(root.get("state_dir", FILE_PATH, COORDINATOR_STATE_DIR))
    return CoordinatorSettings(
        listen=root.get("listen", list_of(ADDRESS, least=1), default.listen),
        advertise=root.get("advertise", list_of(COORDINATOR_URL, least=1), default.advertise),
        state_dir=default.state_dir,
        database=_place(root, "database", _DATABASE, default.database),
        store=_place(root, "store", _STORE, default.store),
        tls=tls_files(root.table("tls"), default.tls),
        lease_ms=root.table("singleton").get("lease", _LEASE, default.lease_ms),
    )


def _place(root: Table, key: str, scheme: str, default: str) -> str:
    """A URL of the only scheme that this version has. What is refused is not shown: it may hold a password."""
    kind = _absolute(scheme)
    if root.get(key, STRING, "").startswith(_PLANNED):
        raise root.error(key, kind.expected, f"another kind of {key}, {NOT_SUPPORTED}")
    return root.get(key, kind, default)


def _absolute(scheme: str) -> Kind[str]:
    def is_absolute(url: str) -> bool:
        return url.startswith(scheme) and _is_path(url.removeprefix(scheme))

    return text_where(f'a URL such as "{scheme}/var/lib/…"', is_absolute)


def _is_path(text: str) -> bool:
    try:
        FILE_PATH.convert(text)
    except ValueError:
        return False
    return "?" not in text and "#" not in text
