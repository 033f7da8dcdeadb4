"""How hosts come into the fleet, what they may be there, and how they go: a real coordinator, the real joiner."""

import socket
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from msgspec.structs import replace
from structlog.testing import capture_logs

from agent.client.answers import HostTokenMade
from agent.coordinator import ca
from agent.coordinator.attempts import WRONG_MAX
from agent.errors import (
    FailedError,
    NotFoundError,
    RefusedError,
    RollwayError,
    UnreachableError,
    UsageError,
    VerificationError,
)
from agent.host import certificate
from agent.host.join import Membership, join
from agent.link.tls import cli_context, client_context, server_context
from agent.linux import atomic
from agent.model.ids import HostName
from agent.model.roles import TlsFiles
from agent.settings.agentfile import load_agent
from agent.wire.hosttoken import decode_token, encode_token
from tests.integration.coordinator.fleet import (
    APP,
    DEADLINE_S,
    LOCAL,
    FakeAgent,
    Fleet,
    order,
    release,
    running,
    swap,
    upload,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """A joiner runs on plain asyncio, and the coordinator is a process of its own."""
    return "asyncio"


@pytest.fixture(scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    async with running(tmp_path_factory.mktemp("members")) as fleet:
        yield fleet


async def new_token(fleet: Fleet, name: str = "", ttl_ms: int = 60_000, **labels: str) -> str:
    async with fleet.client() as client:
        made: HostTokenMade = await client.new_host_token(["local"], labels, name, ttl_ms)
    return made.token


async def joined(folder: Path, token: str, name: str) -> Membership:
    config = folder / name / "agent.toml"
    return await join(token, name=name, config=config, state_dir=str(folder / name / "state"), coordinators=())


def settings(folder: Path, name: str) -> Any:
    return load_agent((folder / name / "agent.toml").read_text(), "agent.toml")


def context(folder: Path, name: str) -> ssl.SSLContext:
    return client_context(settings(folder, name).tls)


def certified_for(fleet: Fleet, tls: TlsFiles, kind: ca.Kind, lifetime: timedelta) -> None:
    """Put a certificate of so short a life in the place of the one that is there."""
    old, key = read(tls), ca.public_key(Path(tls.key).read_bytes())
    name = str(old.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    Path(tls.certificate).write_bytes(ca.sign(fleet.ca, name, ("127.0.0.1",), kind, key=key, lifetime=lifetime))


def read(tls: TlsFiles) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path(tls.certificate).read_bytes())


async def status_of_fetch(fleet: Fleet, tls: ssl.SSLContext) -> int:
    async with aiohttp.ClientSession(fleet.url) as http, http.post("/agent/v1/certificate", ssl=tls) as answer:
        return answer.status


async def test_a_host_is_what_its_token_says_and_not_what_it_says(fleet: Fleet, tmp_path: Path) -> None:
    """A host that joined serves the token's environments alone, with the token's labels, whatever its hello claims."""
    token = await new_token(fleet, zone="a")
    member = await joined(tmp_path, token, "m1")
    assert (member.host, member.environments, member.labels) == ("m1", ("local",), {"zone": "a"})
    secret = [tmp_path / "m1" / name for name in ("agent.toml", "state/tls/key.pem", "state/tls/certificate.pem")]
    assert [file.stat().st_mode & 0o777 for file in secret] == [0o600] * 3
    async with fleet.client() as client, anyio.create_task_group() as tasks:
        waiting = next(host for host in await client.hosts() if host.host == "m1")
        assert (waiting.connected, waiting.environments, waiting.version) == (False, ("local",), "")
        tls = context(tmp_path, "m1")
        agent = FakeAgent(fleet, "m1", ("local", "production"), {"role": "database"}, tls)
        tasks.start_soon(agent.dialer.run)
        await agent.until(lambda agent: agent.dialer.connected)
        with anyio.fail_after(DEADLINE_S):
            shown = waiting
            while not shown.connected:
                shown = next(host for host in await client.hosts() if host.host == "m1")
        assert (shown.environments, shown.labels) == (("local",), {"zone": "a"})
        assert (waiting.address, shown.address) == ("", "127.0.0.1"), "where its link comes from"
        changed = await client.label_host(HostName("m1"), {"zone": None, "role": "web"})
        assert changed.labels == {"role": "web"}
        assert next(host for host in await client.hosts() if host.host == "m1").labels == {"role": "web"}
        tasks.cancel_scope.cancel()


async def test_a_token_is_good_for_one_key(fleet: Fleet, tmp_path: Path) -> None:
    """The host that used a token may use it again; to every other it is used."""
    token = await new_token(fleet)
    await joined(tmp_path, token, "once")
    key = (tmp_path / "once" / "state" / "tls" / "key.pem").read_bytes()
    await joined(tmp_path, token, "once")
    assert (tmp_path / "once" / "state" / "tls" / "key.pem").read_bytes() == key
    with pytest.raises(RefusedError, match="used already, by once"):
        await joined(tmp_path, token, "twice")
    assert not (tmp_path / "twice" / "agent.toml").exists()


async def test_of_two_that_race_with_one_token_one_wins(fleet: Fleet, tmp_path: Path) -> None:
    """Joining at the same moment with one token, exactly one host gets in."""
    token = await new_token(fleet)
    ends: list[str] = []

    async def race(name: str) -> None:
        try:
            await joined(tmp_path, token, name)
            ends.append("in")
        except RefusedError as error:
            ends.append(error.error.split(", by")[0])

    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(race, f"racer{number}")
    assert sorted(ends) == ["in", *["the token was used already"] * 3]


@pytest.mark.parametrize("crash", range(4))
async def test_a_joiner_that_crashes_joins_again(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: int
) -> None:
    """Killed before any of its files is written a host has not joined, and the same token brings it in afterwards."""
    token, writes = await new_token(fleet), iter(range(10))
    written = {name: getattr(atomic, name) for name in ("create_exclusive", "write_atomically")}

    class KilledError(Exception):
        pass

    def dying(name: str) -> Any:
        def write(*arguments: Any, **options: Any) -> None:
            if next(writes) == crash:
                raise KilledError
            written[name](*arguments, **options)

        return write

    for name in written:
        monkeypatch.setattr(atomic, name, dying(name))
    with pytest.raises(KilledError):
        await joined(tmp_path, token, f"crash{crash}")
    assert not (tmp_path / f"crash{crash}" / "agent.toml").exists()
    await joined(tmp_path, token, f"crash{crash}")
    assert await status_of_fetch(fleet, context(tmp_path, f"crash{crash}")) == 201


async def test_what_a_joiner_cannot_do_is_said(fleet: Fleet, tmp_path: Path) -> None:
    """An expired token, one for another name, a name that is taken, another authority: each is refused in words."""
    expired = await new_token(fleet, ttl_ms=1)
    with pytest.raises(RefusedError, match="the token has expired"):
        await joined(tmp_path, expired, "late")
    with pytest.raises(RefusedError, match="for the host web1, not for web2"):
        await joined(tmp_path, await new_token(fleet, name="web1"), "web2")
    await joined(tmp_path, await new_token(fleet), "taken")
    with pytest.raises(RefusedError, match="there is a host taken already"):
        await joined(tmp_path / "other", await new_token(fleet), "taken")
    with pytest.raises(RefusedError, match="has joined already, as taken"):
        await join(
            await new_token(fleet),
            name="another",
            config=tmp_path / "taken" / "agent.toml",
            state_dir=str(tmp_path / "x"),
            coordinators=(),
        )
    known = decode_token(await new_token(fleet))
    foreign = encode_token(replace(known, fingerprint="0" * 64))
    with pytest.raises(RefusedError, match="its authority has another fingerprint"):
        await joined(tmp_path, foreign, "foreign")
    with pytest.raises(RefusedError, match="fleet of another authority"):
        await joined(tmp_path, foreign, "taken")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    away = encode_token(replace(known, coordinators=(f"https://127.0.0.1:{port}",)))
    with pytest.raises(UnreachableError, match=f"cannot reach https://127.0.0.1:{port}[^:]*: connection refused"):
        await joined(tmp_path, away, "away")
    renamed = encode_token(replace(known, coordinators=(fleet.url.replace("127.0.0.1", "localhost"),)))
    with pytest.raises(RollwayError, match="is for another name") as raised:
        await joined(tmp_path, renamed, "renamed")
    assert "advertise" in raised.value.what_to_do
    secret = encode_token(replace(known, secret="x" * 43))
    with pytest.raises(RefusedError, match="not known to this coordinator"):
        await joined(tmp_path, secret, "guesser")
    for token in (expired, foreign, away, secret):
        assert decode_token(token).secret not in fleet.log


async def test_a_clock_that_is_wrong_is_named(fleet: Fleet, tmp_path: Path) -> None:
    """Where the coordinator's certificate is over by the host's clock, the clocks are what to look at."""
    tls = fleet.certificate("over", "coordinator")
    certified_for(fleet, tls, "coordinator", timedelta(seconds=-60))

    async def authority(_: web.Request) -> web.FileResponse:
        return web.FileResponse(tls.ca)

    app = web.Application()
    app.router.add_get("/join/v1/authority", authority)
    runner = web.AppRunner(app)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await web.SockSite(runner, listening, ssl_context=server_context(tls)).start()
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        token = encode_token(replace(decode_token(await new_token(fleet)), coordinators=(url,)))
        with pytest.raises(FailedError, match="by this host's clock") as raised:
            await joined(tmp_path, token, "skewed")
        assert "clocks" in raised.value.what_to_do
        await runner.cleanup()


def a_request(name: str = "m9", *, other: bool = False, extended: bool = False, kind: str = "p256") -> str:
    key: Any = rsa.generate_private_key(65_537, 2_048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP384R1()) if kind == "p384" else key
    names = [x509.NameAttribute(NameOID.COMMON_NAME, "coordinator" if other else name)]
    if kind == "role":
        names.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "coordinator"))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    if extended:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


HOSTILE = {
    "another name": a_request(other=True),
    "a role": a_request(kind="role"),
    "the power to sign": a_request(extended=True),
    "an RSA key": a_request(kind="rsa"),
    "a key on another curve": a_request(kind="p384"),
    "no request": "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    "nothing": "",
    "far too much": "A" * 20_000,
}


async def test_a_request_that_asks_for_more_is_refused_and_the_token_stays_good(fleet: Fleet, tmp_path: Path) -> None:
    """Whatever a certificate request asks for beside the host's own name is refused, and spends nothing."""
    token = await new_token(fleet)
    async with fleet.http(token="") as http:
        for csr in HOSTILE.values():
            body = {"secret": decode_token(token).secret, "name": "m9", "csr": csr}
            async with http.post("/join/v1/hosts", json=body) as answer:
                assert (answer.status, (await answer.json())["code"]) == (400, 2)
        shapeless: tuple[object, ...] = ({"secret": 1}, [], {"secret": "s", "name": "../etc", "csr": a_request()})
        for wrong in shapeless:
            async with http.post("/join/v1/hosts", json=wrong) as answer:
                assert answer.status == 400
    assert (await joined(tmp_path, token, "m9")).host == "m9"


async def test_who_guesses_is_stopped_and_nobody_else(fleet: Fleet, tmp_path: Path) -> None:
    """After some wrong secrets an address is not even listened to; a host at another one joins all the same."""
    connector = aiohttp.TCPConnector(ssl=cli_context(str(fleet.ca / "ca.pem")), local_addr=("127.0.0.99", 0))
    said = []
    async with aiohttp.ClientSession(fleet.url, connector=connector) as http:
        for number in range(WRONG_MAX + 2):
            body = {"secret": f"{number:043}", "name": "m8", "csr": a_request("m8")}
            async with http.post("/join/v1/hosts", json=body) as answer:
                said.append(((await answer.json())["error"], answer.status))
    unknown = ("the token is not known to this coordinator", 401)
    assert said == [unknown] * WRONG_MAX + [("too many wrong tokens came from this address", 409)] * 2
    assert (await joined(tmp_path, await new_token(fleet), "m8")).host == "m8"


async def test_a_removed_host_is_out_at_once(fleet: Fleet, tmp_path: Path) -> None:
    """Its link is cut, its certificate opens nothing; the same name may come back with another key only by a token."""
    await joined(tmp_path, await new_token(fleet), "gone")
    old = context(tmp_path, "gone")
    async with fleet.client() as client, anyio.create_task_group() as tasks:
        agent = FakeAgent(fleet, "gone", tls=old)
        tasks.start_soon(agent.dialer.run)
        await agent.until(lambda agent: agent.dialer.connected)
        assert await status_of_fetch(fleet, old) == 201
        await client.remove_host(HostName("gone"))
        await agent.until(lambda agent: not agent.dialer.connected)
        with anyio.fail_after(DEADLINE_S):  # it dials again, in vain, and keeps for a person on its host why
            while (lost := agent.dialer.lost) is None or "`rollway agent join TOKEN`" not in lost.what_to_do:
                assert await status_of_fetch(fleet, old) == 403
        assert lost.reason == f"{fleet.url}: gone was removed from the fleet"
        assert await status_of_fetch(fleet, old) == 403
        assert "gone" not in [host.host for host in await client.hosts()]
        with pytest.raises(NotFoundError):
            await client.remove_host(HostName("gone"))
        await joined(tmp_path / "new", await new_token(fleet), "gone")
        assert await status_of_fetch(fleet, context(tmp_path / "new", "gone")) == 201
        assert await status_of_fetch(fleet, old) == 403
        assert not agent.dialer.connected
        tasks.cancel_scope.cancel()


async def test_a_certificate_is_renewed_before_it_ends(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two thirds through its certificate's life an agent has the next one, for the same key, without a restart."""
    await joined(tmp_path, await new_token(fleet), "renewed")
    tls = settings(tmp_path, "renewed").tls
    certified_for(fleet, tls, "agent", timedelta(seconds=60))
    old, used, taken = read(tls), client_context(tls), anyio.Event()
    load = used.load_cert_chain

    def load_and_tell(*files: str) -> None:
        load(*files)
        taken.set()

    monkeypatch.setattr(used, "load_cert_chain", load_and_tell)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(certificate.keep_renewed, tls, [fleet.url], used)
        with anyio.fail_after(DEADLINE_S):
            await taken.wait()
        tasks.cancel_scope.cancel()
    new = read(tls)
    assert new.public_key() == old.public_key()
    assert new.not_valid_after_utc - new.not_valid_before_utc > timedelta(days=89)


async def test_a_certificate_that_cannot_be_renewed_ends_nothing(fleet: Fleet, tmp_path: Path) -> None:
    """A certificate's file that is damaged, or a coordinator that is away, is said; the agent goes on."""
    await joined(tmp_path, await new_token(fleet), "damaged")
    tls = settings(tmp_path, "damaged").tls
    used = client_context(tls)
    certified_for(fleet, tls, "agent", timedelta(seconds=60))
    away = replace(tls, certificate=str(tmp_path / "damaged" / "agent.toml"))
    with capture_logs() as said, anyio.move_on_after(0.5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(certificate.keep_renewed, tls, ["https://127.0.0.1:1"], used)
            tasks.start_soon(certificate.keep_renewed, away, [fleet.url], used)
    assert [event["event"] for event in said] == ["cannot renew the certificate"] * 2


async def test_a_renewed_certificate_that_is_not_ours_is_not_kept(fleet: Fleet, tmp_path: Path) -> None:
    """For another key or another name, or none at all: the one that fits stays, and it is said."""
    await joined(tmp_path, await new_token(fleet), "careful")
    tls = settings(tmp_path, "careful").tls
    before = atomic.read(Path(tls.certificate))
    key = ca.public_key(atomic.read(Path(tls.key)))
    wrong = {
        ca.sign(fleet.ca, "somebody-else", (), "agent", key=key).decode(): "not for us, but 'somebody-else'",
        ca.issue(fleet.ca, "careful", (), "agent")[0].decode(): "not for our key",
        "no certificate": "not for our key",
    }
    for sent, why in wrong.items():
        with pytest.raises(VerificationError, match=why):
            certificate._checked(tls, sent)
    assert certificate._checked(tls, before.decode())[0] == before
    assert atomic.read(Path(tls.certificate)) == before


async def test_tokens_and_decisions_outlive_the_coordinator(tmp_path: Path) -> None:
    """After `kill -9` a token is still good or still used, labels are those given last, and who was removed is out."""
    async with running(tmp_path) as fleet:
        spent, fresh = await new_token(fleet), await new_token(fleet)
        await joined(tmp_path, spent, "stays")
        await joined(tmp_path, await new_token(fleet), "goes")
        async with fleet.client() as client:
            await client.label_host(HostName("stays"), {"zone": "b"})
            await client.remove_host(HostName("goes"))
        await fleet.kill()
        await fleet.start()
        with pytest.raises(RefusedError, match="used already, by stays"):
            await joined(tmp_path, spent, "thief")
        assert (await joined(tmp_path, fresh, "fresh")).host == "fresh"
        async with fleet.client() as client:
            assert {host.host: host.labels for host in await client.hosts()} == {"fresh": {}, "stays": {"zone": "b"}}
        assert await status_of_fetch(fleet, context(tmp_path, "goes")) == 403


async def test_a_rollout_does_not_wait_for_a_host_that_was_removed(tmp_path: Path) -> None:
    """With a host that never answers, a rollout stands; once that host is removed it ends as done with the others."""
    async with running(tmp_path) as fleet, fleet.client() as client, anyio.create_task_group() as tasks:
        await upload(fleet, client)
        agents = [FakeAgent(fleet, name) for name in ("h1", "h2")]
        for agent in agents:
            tasks.start_soon(agent.dialer.run)
            await agent.until(lambda agent: agent.dialer.connected)
        agents[1].answers = False
        await client.create_release(APP, LOCAL, release("v1"))
        begun = await client.start_rollout(APP, LOCAL, (await order(client, "v1")).envelope, None)
        await agents[0].until(lambda agent: bool(agent.held))
        assert (await client.rollout(begun.id)).state == "preflight"
        await client.remove_host(HostName("h2"))
        with anyio.fail_after(DEADLINE_S):
            ended = [shown async for shown in client.watch(begun.id) if shown is not None][-1]
        assert (ended.state, [host.host for host in ended.hosts]) == ("done", ["h1"])
        assert (await swap(client, "v2")).state == "done"
        tasks.cancel_scope.cancel()


async def test_without_the_authoritys_key_no_host_is_brought_in(tmp_path: Path) -> None:
    """A coordinator with certificates from elsewhere says that it cannot certify hosts, and how it could."""
    fleet = Fleet(tmp_path)
    (fleet.ca / "ca.key").rename(tmp_path / "elsewhere.key")
    try:
        await fleet.start()
        with pytest.raises(RefusedError, match=r"there is no ca\.key beside"):
            await new_token(fleet)
    finally:
        fleet.close()


async def test_what_an_operator_asks_for_is_checked(fleet: Fleet) -> None:
    """A token without an environment, with a wrong label, or that would live too long is refused."""
    async with fleet.client() as client:
        for environments, labels, name, ttl_ms in (
            ([], {}, "", 1_000),
            (["Prod"], {}, "", 1_000),
            (["local"], {"a b": "c"}, "", 1_000),
            (["local"], {"zone": ""}, "", 1_000),
            (["local"], {}, "../h", 1_000),
            (["local"], {}, "", 0),
            (["local"], {}, "", 8 * 24 * 3_600_000),
        ):
            with pytest.raises(UsageError):
                await client.new_host_token(environments, labels, name, ttl_ms)
