"""Releases and orders out of their envelopes: what a host accepts, and what it says when it does not."""

import pytest
from msgspec.structs import replace

from agent.artifacts import sign
from agent.errors import VerificationError
from agent.model.ids import AppName, Digest, EnvironmentName, HostName, ProcessName, ReleaseName
from agent.model.process import AppSpec, ProcessType
from agent.model.release import ConfigValue, Order, Release, RunOrder
from agent.wire import canonical, dsse

WEB = ProcessType(name=ProcessName("web"), command="bin/web")
RELEASE = Release(
    app=AppName("shop"),
    environment=EnvironmentName("production"),
    name=ReleaseName("v1.2.3"),
    build=Digest("sha256:" + "a" * 64),
    build_manifest=Digest("sha256:" + "b" * 64),
    version="1.2.3",
    commit="c" * 40,
    created_at_s=1_765_000_000,
    config_version=7,
    config={"DATABASE_URL": ConfigValue(plain="sqlite:///shop.db"), "SECRET_KEY": ConfigValue(age="YWdl")},
    spec=AppSpec(app=AppName("shop"), processes=(WEB,)),
)
ORDER = Order(
    kind="swap",
    app=AppName("shop"),
    environment=EnvironmentName("production"),
    release=ReleaseName("v1.2.3"),
    release_digest=Digest("sha256:" + "d" * 64),
    replaces=None,
    replaces_digest=None,
    sequence=1,
)
RUN = RunOrder(
    app=AppName("shop"),
    environment=EnvironmentName("production"),
    host=HostName("h1"),
    release=ReleaseName("v1.2.3"),
    release_digest=Digest("sha256:" + "d" * 64),
    words=("bin/console",),
    like=None,
)


def test_a_sealed_release_is_accepted() -> None:
    """A release comes out of its envelope as it went in, and its identity is the digest of its canonical bytes."""
    envelope = sign.seal(RELEASE)
    assert sign.verify_release(envelope) == RELEASE
    assert sign.payload_digest(envelope) == canonical.digest_of(canonical.encode(RELEASE))


def test_a_sealed_order_is_accepted() -> None:
    """An order comes out of its envelope as it went in."""
    again = replace(
        ORDER, replaces=ReleaseName("v1.2.2"), replaces_digest=Digest("sha256:" + "e" * 64), kind="rollback", sequence=2
    )
    assert [sign.verify_order(sign.seal(order)) for order in (ORDER, again)] == [ORDER, again]


WRONG_RELEASES = {
    "an app that climbs": (replace(RELEASE, app=AppName("../x")), "wrong app, spec.app"),
    "an environment with a slash": (replace(RELEASE, environment=EnvironmentName("a/b")), "wrong environment"),
    "a name that climbs": (replace(RELEASE, name=ReleaseName("v1..2")), "wrong name"),
    "a build that is no digest": (replace(RELEASE, build=Digest("sha256:../../x")), "wrong build"),
    "a version without end": (replace(RELEASE, version="1" * 65), "wrong version"),
    "a config key that the agent sets": (replace(RELEASE, config={"PORT": ConfigValue(plain="1")}), "wrong config"),
    "another app's processes": (replace(RELEASE, spec=AppSpec(app=AppName("blog"))), "wrong spec.app"),
    "a process type that climbs": (
        replace(RELEASE, spec=AppSpec(app=AppName("shop"), processes=(replace(WEB, name=ProcessName("..")),))),
        "wrong spec.processes",
    ),
    "a process type given twice": (
        replace(RELEASE, spec=AppSpec(app=AppName("shop"), processes=(WEB, WEB))),
        "wrong spec.processes",
    ),
}


@pytest.mark.parametrize(("release", "reason"), WRONG_RELEASES.values(), ids=list(WRONG_RELEASES))
def test_releases_with_wrong_fields_are_refused(release: Release, reason: str) -> None:
    """No name that could reach a path gets out of an envelope unchecked."""
    with pytest.raises(VerificationError, match=reason):
        sign.verify_release(sign.seal(release))


WRONG_ORDERS = {
    "a number below one": (replace(ORDER, sequence=0), "wrong sequence"),
    "a release that climbs": (replace(ORDER, release=ReleaseName("../v1")), "wrong release"),
    "a replaced release without its digest": (
        replace(ORDER, replaces=ReleaseName("v1")),
        "wrong replaces and replaces_digest",
    ),
}


@pytest.mark.parametrize(("order", "reason"), WRONG_ORDERS.values(), ids=list(WRONG_ORDERS))
def test_orders_with_wrong_fields_are_refused(order: Order, reason: str) -> None:
    """An order that contradicts itself is refused, saying where."""
    with pytest.raises(VerificationError, match=reason):
        sign.verify_order(sign.seal(order))


def test_a_sealed_command_is_accepted() -> None:
    """A command comes out of its envelope word by word, whatever its words are."""
    order = replace(RUN, words=("sh", "-c", "echo 'ü' \n\t", ""), like=ProcessName("web"))
    assert sign.verify_run(sign.seal(order)) == order


WRONG_RUNS = {
    "a host that climbs": (replace(RUN, host=HostName("../h1")), "wrong host"),
    "a release that climbs": (replace(RUN, release=ReleaseName("../v1")), "wrong release"),
    "no word": (replace(RUN, words=()), "wrong words"),
    "a program without a name": (replace(RUN, words=("", "x")), "wrong words"),
    "a word that holds a NUL": (replace(RUN, words=("x", "a\0b")), "wrong words"),
    "words without end": (replace(RUN, words=("x",) * (sign.WORDS_MAX + 1)), "wrong words"),
    "a word without end": (replace(RUN, words=("x" * (sign.WORDS_BYTES_MAX + 1),)), "wrong words"),
    "a process type that climbs": (replace(RUN, like=ProcessName("..")), "wrong like"),
}


@pytest.mark.parametrize(("order", "reason"), WRONG_RUNS.values(), ids=list(WRONG_RUNS))
def test_commands_with_wrong_fields_are_refused(order: RunOrder, reason: str) -> None:
    """Nothing that could not be run, or reach a path, gets out of an envelope."""
    with pytest.raises(VerificationError, match=reason):
        sign.verify_run(sign.seal(order))


def test_an_order_is_no_release() -> None:
    """What was sealed as one thing cannot be passed off as another."""
    for read in (sign.verify_release, sign.verify_run):
        with pytest.raises(VerificationError, match=r"holds 'application/vnd\.rollway\.order\+json'"):
            read(sign.seal(ORDER))


def test_a_payload_in_another_spelling_is_refused() -> None:
    """A release whose bytes were touched is refused even if it means the same."""
    spaced = canonical.encode(RELEASE).replace(b",", b", ")
    with pytest.raises(VerificationError, match="canonical form"):
        sign.verify_release(dsse.encode(dsse.Envelope(payload_type=sign.RELEASE_TYPE, payload=spaced)))


def test_an_envelope_without_bounds_is_refused() -> None:
    """An envelope larger than any release is refused before it is read."""
    with pytest.raises(VerificationError, match="at most 1048576 are accepted"):
        sign.verify_release(b" " * (sign.ENVELOPE_BYTES_MAX + 1))
