"""New counts in the text of an environment's settings: `[scale]` is changed, everything else stays as it was written.

The coordinator's alone: a host has no library for it, and needs none.
"""

from collections.abc import Mapping, MutableMapping

import tomlkit
from msgspec.structs import replace

from agent.errors import RefusedError
from agent.model.ids import ProcessName
from agent.settings.environment import load_environment


def with_counts(text: str, counts: Mapping[ProcessName, int], file: str) -> str:
    """`text` with these counts in it; `file` names it in errors. Raises SettingsError, RefusedError."""
    document = tomlkit.parse(text)
    if "scale" not in document:
        document["scale"] = tomlkit.table()
    table = document["scale"]
    if isinstance(table, MutableMapping):
        for name, count in counts.items():
            table[name] = count
    changed = document.as_string()
    before, after = load_environment(text, file), load_environment(changed, file)
    if after != replace(before, scale={**before.scale, **counts}):  # however somebody spelled it: never a wrong setting
        raise RefusedError(
            f"cannot change [scale] in the {file} as it is written there",
            "Write it as a table of its own, [scale], and set the file: `rollway env set`.",
        )
    return changed
