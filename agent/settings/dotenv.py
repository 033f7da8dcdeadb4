r"""`.env`: one `KEY=value` a line, as config for `rollway config import` and `rollway dev`.

Rules: `export` before a key is allowed; a value is plain (up to ` #`), in 'single quotes' (as it stands) or in double
quotes (with \n \t \r \" \' \\ \$); `$` is never expanded; a value ends with its line. Errors show no value: it may be a
secret.
"""

import re
from collections.abc import Collection
from typing import Final

from agent.errors import SettingsError
from agent.model.ids import CONFIG_KEY_EXPECTED, is_config_key

_LINE: Final = re.compile(r"\s*(?:export\s+)?([^\s=]+)\s*=\s*(.*?)\s*")
_SINGLE: Final = re.compile(r"'([^']*)'\s*(?:#.*)?")
_DOUBLE: Final = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(?:#.*)?')
_PLAIN: Final = re.compile(r"(?:#.*|(.*?)(?:\s#.*)?)")
_ESCAPE: Final = re.compile(r"\\(.)")
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$", "'": "'"}


def load_dotenv(text: str, file: str, beside: Collection[str] = ()) -> dict[str, str]:
    """The variables that `text` sets, in its order. A name of `beside` may be none of config. Raises SettingsError."""
    variables: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or "\0" in line:
            raise SettingsError(file, "", "a line such as KEY=value", "another one", number)
        key = match[1]
        if not is_config_key(key) and key not in beside:
            raise SettingsError(file, key, CONFIG_KEY_EXPECTED, "a name that config cannot have", number)
        if key in variables:
            raise SettingsError(file, key, "each key once", "a second value", number)
        variables[key] = _value(match[2], key, file, number)
    return variables


def _value(raw: str, key: str, file: str, number: int) -> str:
    if raw.startswith("'"):
        quoted = _SINGLE.fullmatch(raw)
    elif raw.startswith('"'):
        quoted = _DOUBLE.fullmatch(raw)
    else:
        plain = _PLAIN.fullmatch(raw)
        return (plain[1] or "") if plain else raw
    if quoted is None:
        expected = "a quoted value that ends on its line (a line break inside is written \\n in double quotes)"
        raise SettingsError(file, key, expected, "no closing quote at its end", number)
    if raw.startswith("'"):
        return quoted[1]
    unknown = next((escape for escape in _ESCAPE.findall(quoted[1]) if escape not in _ESCAPES), None)
    if unknown is not None:
        raise SettingsError(file, key, r"an escape such as \n, \" or \\", "another escape", number)
    return _ESCAPE.sub(lambda escape: _ESCAPES[escape[1]], quoted[1])
