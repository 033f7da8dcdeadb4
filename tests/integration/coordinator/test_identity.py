"""What a coordinator makes at its first start, and what it keeps: authority, certificate, the first way in."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from cryptography import x509
from sqlalchemy import create_engine, inspect, text

from agent.client.context import read_context
from agent.coordinator import identity
from agent.coordinator.context import write
from agent.coordinator.db import fleet, members
from agent.coordinator.db.engine import Database
from agent.coordinator.db.members import Member
from agent.coordinator.tokens import Tokens
from agent.errors import NotFoundError, RefusedError, SettingsError
from agent.model.ids import EnvironmentName, HostName
from agent.model.roles import CoordinatorSettings
from agent.settings.coordinatorfile import load_coordinator

FIRST = 'advertise = ["https://rollway.example:7070", "https://[2001:db8::1]:7070"]'
HELLO = '{"type":"hello","protocol":1,"host":"h1","boot_id":"b","version":"0","age_recipient":"age1"}'


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    return tmp_path / "tls"


def settings(folder: Path, text: str = FIRST) -> CoordinatorSettings:
    return load_coordinator(f'{text}\nstate_dir = "{folder}"', "coordinator.toml")


def names(tls: Path) -> set[str]:
    certificate = x509.load_pem_x509_certificate((tls / "certificate.pem").read_bytes())
    known = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*known.get_values_for_type(x509.DNSName), *map(str, known.get_values_for_type(x509.IPAddress))}


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_first_start_makes_all_and_a_second_nothing(tmp_path: Path, tls: Path) -> None:
    """From nothing come an authority and a certificate for every advertised name, with keys for their owner alone."""
    identity.prepare(settings(tmp_path))
    made = contents(tls)
    assert sorted(made) == ["ca.key", "ca.pem", "certificate.pem", "key.pem"]
    assert {"rollway.example", "2001:db8::1"} <= names(tls)
    assert [(tls / name).stat().st_mode & 0o777 for name in ("ca.key", "key.pem")] == [0o600] * 2
    identity.prepare(settings(tmp_path))
    assert contents(tls) == made


def test_a_new_name_changes_the_certificate_alone(tmp_path: Path, tls: Path) -> None:
    """Hosts that trust the authority go on trusting it when the coordinator is to be reached by another name."""
    identity.prepare(settings(tmp_path))
    before = contents(tls)
    identity.prepare(settings(tmp_path, 'advertise = ["https://other.example:7070"]'))
    after = contents(tls)
    assert [name for name in before if before[name] != after[name]] == ["certificate.pem"]
    assert "other.example" in names(tls)


@pytest.mark.parametrize("lost", [("key.pem",), ("certificate.pem",), ("certificate.pem", "key.pem")], ids=str)
def test_what_a_crash_left_out_is_made_again(tmp_path: Path, tls: Path, lost: tuple[str, ...]) -> None:
    """Whatever of its own certificate is missing is made anew by the authority that is there."""
    identity.prepare(settings(tmp_path))
    authority = (tls / "ca.pem").read_bytes()
    for name in lost:
        (tls / name).unlink()
    identity.prepare(settings(tmp_path))
    assert (tls / "ca.pem").read_bytes() == authority
    assert "rollway.example" in names(tls)


def test_an_authority_that_is_lost_is_not_replaced(tmp_path: Path, tls: Path) -> None:
    """Where a certificate is and its authority is not, the coordinator says which file, and makes no other one."""
    identity.prepare(settings(tmp_path))
    (tls / "ca.pem").unlink()
    with pytest.raises(SettingsError, match=r"tls\.ca: expected the authority of the certificate that is there"):
        identity.prepare(settings(tmp_path))
    assert not (tls / "ca.pem").exists()


@pytest.mark.parametrize(
    ("text", "urls"),
    {
        'listen = ["10.0.0.1:7070"]': ("https://10.0.0.1:7070",),
        'listen = ["[::1]:7070", "127.0.0.1:7070"]': ("https://[::1]:7070", "https://127.0.0.1:7070"),
        FIRST: ("https://rollway.example:7070", "https://[2001:db8::1]:7070"),
    }.items(),
)
def test_what_a_token_names(tmp_path: Path, text: str, urls: tuple[str, ...]) -> None:
    """Hosts are told the advertised addresses, or those that the coordinator listens on."""
    assert identity.urls(settings(tmp_path, text)) == urls


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path}/coordinator.db")
    yield opened
    opened.close()


@pytest.mark.anyio
async def test_the_first_operator_gets_in_by_a_file(tmp_path: Path, database: Database) -> None:
    """The first start makes an admin's token that only the machine's owner can read; `context` gives it to a client."""
    with pytest.raises(NotFoundError, match="bootstrap_token"):
        write(settings(tmp_path), tmp_path / "op")
    identity.prepare(settings(tmp_path))
    await Tokens.load(database, tmp_path / "bootstrap_token")
    file = write(settings(tmp_path), tmp_path / "op")
    assert file.stat().st_mode & 0o777 == 0o600
    context = read_context(file.read_text(), str(file))
    assert (context.coordinator, context.ca) == ("https://rollway.example:7070", str(tmp_path / "op" / "ca.pem"))
    tokens = await Tokens.load(database, tmp_path / "bootstrap_token")
    assert tokens.admit(f"Bearer {context.token}", "admin").role == "admin"
    (tmp_path / "bootstrap_token").unlink()
    await Tokens.load(database, tmp_path / "bootstrap_token")
    assert not (tmp_path / "bootstrap_token").exists()


def test_a_context_of_another_coordinator_is_not_overwritten(tmp_path: Path) -> None:
    """Who commands another coordinator already keeps that client.toml."""
    identity.prepare(settings(tmp_path))
    (tmp_path / "bootstrap_token").write_text("a-token\n")
    (tmp_path / "op").mkdir()
    (tmp_path / "op" / "client.toml").write_text('coordinator = "https://another"\n')
    with pytest.raises(RefusedError, match="for another coordinator"):
        write(settings(tmp_path), tmp_path / "op")


@pytest.mark.anyio
async def test_a_database_of_the_version_before_is_taken_along(tmp_path: Path) -> None:
    """Hosts that a coordinator knew before hosts could join are known after it, and members can be stored."""
    url = f"sqlite:///{tmp_path}/coordinator.db"
    engine = create_engine(url)
    config = Config()
    config.set_main_option("script_location", "agent.coordinator.db:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(text("INSERT INTO hosts VALUES ('h1', :hello, 0)"), {"hello": HELLO})
        assert "members" not in inspect(connection).get_table_names()
    engine.dispose()
    database = Database(url)
    member = Member(name=HostName("h2"), environments=(EnvironmentName("local"),), labels={"a": "b"}, joined_ms=1)
    await database.run(lambda connection: members.store(connection, member))
    assert await database.run(members.every) == [member]
    assert [hello.host for hello in await database.run(fleet.list_hosts)] == ["h1"]
    assert await database.run(members.tokens) == []
    database.close()


BARE = "import sys; sys.modules.update(dict.fromkeys({missing!r})); from agent.__main__ import main; main()"
MISSING = ("click", "rich_click", "rich", "sqlalchemy", "alembic")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    {
        "nothing": ([], 2, "give the token, or --token-file, and not both"),
        "a wrong word": (["--colour"], 2, "unrecognized arguments: --colour"),
        "no token": (["hunter2"], 2, "this is no host token"),
        "a token from the input": (["-"], 2, "this is no host token"),
        "a file that is not there": (["--token-file", "/nonexistent"], 2, "cannot read /nonexistent"),
    }.values(),
)
def test_a_host_joins_with_what_a_host_has(words: list[str], code: int, said: str) -> None:
    """`rollway agent join` needs no library of the command line or of the coordinator, and says what is wrong."""
    program = BARE.format(missing=MISSING)
    ended = subprocess.run(
        [sys.executable, "-c", program, "agent", "join", *words], input="x", capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (code, "")
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
