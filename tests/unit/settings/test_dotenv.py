"""`.env`: what it sets, and what it refuses without showing a value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import SettingsError
from agent.settings.dotenv import load_dotenv

SETS = {
    "a plain value": ("A=b", "b"),
    "an empty value": ("A=", ""),
    "spaces around the sign": ("  A = b  ", "b"),
    "export": ("export A=b", "b"),
    "a key that begins with export": ("EXPORT_A=b", None),
    "a comment after a value": ("A=b # c", "b"),
    "a hash within a value": ("A=b#c", "b#c"),
    "only a comment": ("A=# c", ""),
    "a value with an equals sign": ("A=postgres://u:p@h/d?x=y", "postgres://u:p@h/d?x=y"),
    "single quotes": (r"A='b # \n $c'", r"b # \n $c"),
    "double quotes": (r'A="b # \n \"c\" \\ \$d" # e', 'b # \n "c" \\ $d'),
    "nothing in quotes": ('A=""', ""),
    "a quote within a plain value": ("A=it's", "it's"),
    "a dollar, which is not expanded": ("A=$B", "$B"),
    "a Windows line": ("A=b\r", "b"),
}


@pytest.mark.parametrize("case", SETS)
def test_a_line_sets_what_a_shell_reader_expects(case: str) -> None:
    """Quotes, comments and export mean what they mean in the files that people have."""
    text, value = SETS[case]
    expected = {"EXPORT_A": "b"} if value is None else {"A": value}
    assert load_dotenv(f"# first\n\n{text}\n", ".env") == expected


WRONG = {
    "no sign": ("SECRET123", (".env:2:", "KEY=value")),
    "no key": ("=SECRET123", (".env:2:", "KEY=value")),
    "a key with small letters": ("key=SECRET123", (".env:2: key: expected a config key",)),
    "a key that the agent sets itself": ("PORT=SECRET123", (".env:2: PORT: expected a config key",)),
    "a key twice": ("B=SECRET123\nB=SECRET123", (".env:3: B: expected each key once",)),
    "a value over several lines": (
        'A="SECRET123\nmore"',
        (".env:2: A: expected a quoted value that ends on its line",),
    ),
    "text after a quote": ("A='SECRET123' more", (".env:2: A: expected a quoted value",)),
    "an escape that is none": (r'A="SECRET123\q"', (".env:2: A: expected an escape",)),
    "NUL": ("A=SECRET123\0", (".env:2:",)),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_line_is_refused_and_its_value_is_not_shown(case: str) -> None:
    """An error names file, line and key; what may be a secret stays out of it."""
    text, fragments = WRONG[case]
    with pytest.raises(SettingsError) as caught:
        load_dotenv(f"# first\n{text}\n", ".env")
    for fragment in fragments:
        assert fragment in str(caught.value)
    assert "SECRET123" not in str(caught.value)


@given(
    st.dictionaries(
        st.from_regex(r"X[A-Z0-9_]{0,8}", fullmatch=True), st.text(st.characters(exclude_categories=["Cs", "Cc"]))
    )
)
def test_every_value_can_be_written_in_double_quotes(variables: dict[str, str]) -> None:
    """What is quoted by the rules comes back as it was."""
    escaped = {key: value.replace("\\", "\\\\").replace('"', '\\"') for key, value in variables.items()}
    assert load_dotenv("".join(f'{key}="{value}"\n' for key, value in escaped.items()), ".env") == variables


@given(st.text(alphabet=st.sampled_from("AB=# \n\t\r'\"\\$nexport\0é")))
def test_any_text_gives_variables_or_a_settings_error(text: str) -> None:
    """Whatever the file holds, a person gets variables or an error for people."""
    try:
        variables = load_dotenv(text, ".env")
    except SettingsError:
        return
    assert all("\n" not in value or "\\n" in text for value in variables.values())
