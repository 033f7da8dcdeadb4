"""TLS of every connection to a coordinator: version 1.3 alone, our own certificate authority, both ends named.

Rules: agents and coordinator know each other by certificate; a CLI comes without one and shows a token instead, hence
the server asks for a certificate and does not insist: each route says whom it needs. Not handled here: who is at the
other end of a coordinator's connection (`link.peers`), for which it has a library that an agent does not load.
"""

import ssl
from contextlib import suppress
from typing import Any, Final

from msgspec import Struct

from agent.errors import SettingsError
from agent.model.roles import TlsFiles

VERSION: Final = ssl.TLSVersion.TLSv1_3
_AT_ANY_TIME: Final = ssl.VerifyFlags(0x200000)
"""X509_V_FLAG_NO_CHECK_TIME, for which the standard library has no name."""


class Shown(Struct, frozen=True, kw_only=True):
    """A certificate of our own, as who is at the other end sees it."""

    name: str
    """Its CN."""
    not_before_s: float
    not_after_s: float
    """Seconds since 1970."""


def client_context(tls: TlsFiles) -> ssl.SSLContext:
    """An agent's: shows its certificate, trusts the one authority."""
    context = cli_context(tls.ca)
    _load_own(context, tls)
    return context


def cli_context(ca: str | None) -> ssl.SSLContext:
    """A client's without a certificate; without `ca` it trusts what the system trusts."""
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(ca or "", "tls.ca", "a readable PEM file of certificates", _reason(error)) from error
    context.minimum_version = VERSION
    return context


def server_context(tls: TlsFiles) -> ssl.SSLContext:
    """A coordinator's. No session tickets: they would carry client certificates, and a restart voids them all."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSION
    context.num_tickets = 0
    context.verify_mode = ssl.CERT_OPTIONAL
    try:
        context.load_verify_locations(tls.ca)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(tls.ca, "tls.ca", "a readable PEM file of certificates", _reason(error)) from error
    _load_own(context, tls)
    return context


def shown(certificate: str, key: str, ca: str) -> Shown:
    """What the certificate in that file says, once it is proved to be of this key and by this authority. Blocking.

    The standard library reads no certificate but a peer's: here it is one to itself, in memory. A library that reads
    any (cryptography) would be a sixth of an agent's memory. It may have expired. Raises OSError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= _AT_ANY_TIME
    peer = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    peer.check_hostname, peer.verify_mode = False, ssl.CERT_NONE
    for one in (context, peer):
        one.load_cert_chain(certificate, key)
    context.load_verify_locations(ca)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = peer.wrap_bio(back, there), context.wrap_bio(there, back, server_side=True)
    for end in (*ends, *ends):
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    found: dict[str, Any] = ends[1].getpeercert() or {}
    names = [value for part in found["subject"] for kind, value in part if kind == "commonName"]
    return Shown(
        name=names[0] if len(names) == 1 else "",
        not_before_s=ssl.cert_time_to_seconds(found["notBefore"]),
        not_after_s=ssl.cert_time_to_seconds(found["notAfter"]),
    )


def _load_own(context: ssl.SSLContext, tls: TlsFiles) -> None:
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            tls.certificate, "tls.certificate", f"a PEM certificate whose key is {tls.key}", _reason(error)
        ) from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
