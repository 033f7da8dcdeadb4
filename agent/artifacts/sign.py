"""The one place that verifies releases and orders: from an envelope's bytes to a struct that a host may act on.

Rules: nothing else may turn an envelope into a Release, an Order or a RunOrder; the payload is parsed from the very
bytes that were verified and is never serialised again; every name is checked before it can reach a path. The envelopes'
signatures are not examined yet: an empty list is accepted, and so nothing here is evidence of who wrote it.
"""

from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

from agent.errors import VerificationError
from agent.model import ids
from agent.model.ids import Digest
from agent.model.release import Order, Release, RunOrder
from agent.wire import canonical, dsse

RELEASE_TYPE: Final = "application/vnd.rollway.release+json"
ORDER_TYPE: Final = "application/vnd.rollway.order+json"
RUN_TYPE: Final = "application/vnd.rollway.run+json"
ENVELOPE_BYTES_MAX: Final = 1 << 20
"""All kinds are small: names, digests, config and process types."""
WORDS_MAX: Final = 1_000
WORDS_BYTES_MAX: Final = 64 * 1024
"""Of a command, which travels in one frame."""

_TEXT_MAX: Final = 64
_ADVICE: Final = "It was changed after it was made, or not made by Rollway. Create it again."

T = TypeVar("T", Release, Order, RunOrder)


def seal(payload: Release | Order | RunOrder) -> bytes:
    """The envelope of `payload`, with no signature yet."""
    kind = {Release: RELEASE_TYPE, Order: ORDER_TYPE, RunOrder: RUN_TYPE}[type(payload)]
    return dsse.encode(dsse.Envelope(payload_type=kind, payload=canonical.encode(payload)))


def verify_release(envelope: bytes) -> Release:
    """The release in `envelope`; raises VerificationError."""
    release = _open(envelope, RELEASE_TYPE, Release)
    _check(
        "release",
        {
            "app": ids.is_name(release.app),
            "environment": ids.is_name(release.environment),
            "name": ids.is_release_name(release.name),
            "build": ids.is_digest(release.build),
            "build_manifest": ids.is_digest(release.build_manifest),
            "version": 0 < len(release.version) <= _TEXT_MAX,
            "commit": 0 < len(release.commit) <= _TEXT_MAX,
            "config_version": release.config_version >= 0,
            "config": all(ids.is_config_key(key) for key in release.config),
            "spec.app": release.spec.app == release.app,
            "spec.processes": _are_names(process.name for process in release.spec.processes),
        },
    )
    return release


def verify_order(envelope: bytes) -> Order:
    """The order in `envelope`; raises VerificationError."""
    order = _open(envelope, ORDER_TYPE, Order)
    _check(
        "order",
        {
            "app": ids.is_name(order.app),
            "environment": ids.is_name(order.environment),
            "release": ids.is_release_name(order.release),
            "release_digest": ids.is_digest(order.release_digest),
            "replaces": order.replaces is None or ids.is_release_name(order.replaces),
            "replaces_digest": order.replaces_digest is None or ids.is_digest(order.replaces_digest),
            "replaces and replaces_digest": (order.replaces is None) == (order.replaces_digest is None),
            "sequence": order.sequence >= 1,
        },
    )
    return order


def verify_run(envelope: bytes) -> RunOrder:
    """The command in `envelope`; raises VerificationError."""
    order = _open(envelope, RUN_TYPE, RunOrder)
    _check(
        "command",
        {
            "app": ids.is_name(order.app),
            "environment": ids.is_name(order.environment),
            "host": ids.is_host_name(order.host),
            "release": ids.is_release_name(order.release),
            "release_digest": ids.is_digest(order.release_digest),
            "words": are_words(order.words),
            "like": order.like is None or ids.is_name(order.like),
        },
    )
    return order


def are_words(words: Sequence[str]) -> bool:
    """Whether they can be a command."""
    size_bytes = sum(len(word.encode(errors="surrogateescape")) for word in words)
    return (
        0 < len(words) <= WORDS_MAX and bool(words[0]) and size_bytes <= WORDS_BYTES_MAX and "\0" not in "".join(words)
    )


def payload_digest(envelope: bytes) -> Digest:
    """Digest of what `envelope` holds: the identity of a release in an order."""
    return canonical.digest_of(_bounded(envelope).payload)


def _open(envelope: bytes, payload_type: str, kind: type[T]) -> T:
    found = _bounded(envelope)
    if found.payload_type != payload_type:
        raise VerificationError(
            f"cannot read the {kind.__name__.lower()}: the envelope holds {found.payload_type!r:.80}, "
            f"expected {payload_type!r}",
            _ADVICE,
        )
    return canonical.decode(found.payload, kind)


def _bounded(envelope: bytes) -> dsse.Envelope:
    if len(envelope) > ENVELOPE_BYTES_MAX:
        raise VerificationError(
            f"cannot read the envelope: it has {len(envelope)} bytes, at most {ENVELOPE_BYTES_MAX} are accepted",
            _ADVICE,
        )
    return dsse.decode(envelope)


def _check(what: str, fields: dict[str, bool]) -> None:
    wrong = [field for field, is_right in fields.items() if not is_right]
    if wrong:
        raise VerificationError(f"cannot accept the {what}: wrong {', '.join(wrong)}", _ADVICE)


def _are_names(names: Iterable[str]) -> bool:
    seen = list(names)
    return all(map(ids.is_name, seen)) and len(set(seen)) == len(seen)
