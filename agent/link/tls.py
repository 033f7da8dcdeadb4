"""TLS of every connection to a coordinator: version 1.3 alone, our own certificate authority, both ends named.

Rules: agents and coordinator know each other by certificate; a CLI comes without one and shows a token instead, hence
the server asks for a certificate and does not insist: each route says whom it needs. A certificate's CN is the host's
name, its OU the role, so that a coordinator's certificate is no agent's. TLS checks a peer's expiry at the handshake
only; whoever keeps a connection compares `Peer.not_after_s` himself, and so he does with who was removed since.
"""

import hashlib
import ssl
from typing import Final

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from msgspec import Struct

from agent.errors import SettingsError
from agent.model.roles import TlsFiles

AGENT_ROLE: Final = "agent"
COORDINATOR_ROLE: Final = "coordinator"
VERSION: Final = ssl.TLSVersion.TLSv1_3


class Peer(Struct, frozen=True, kw_only=True):
    """Who is at the other end, by a certificate that our authority signed."""

    name: str
    role: str
    not_after_s: float
    """Seconds since 1970 at which the certificate expires."""
    public_key: EllipticCurvePublicKey


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


def peer_of(request: web.BaseRequest) -> Peer | None:
    """Who sent `request`, by certificate; None if they showed none, or one of another kind than ours."""
    connection = request.transport.get_extra_info("ssl_object") if request.transport is not None else None
    der = connection.getpeercert(binary_form=True) if connection is not None else None
    if not der:
        return None
    certificate = x509.load_der_x509_certificate(der)
    key = certificate.public_key()
    if not isinstance(key, EllipticCurvePublicKey):
        return None
    return Peer(
        name=_one(certificate.subject, NameOID.COMMON_NAME),
        role=_one(certificate.subject, NameOID.ORGANIZATIONAL_UNIT_NAME),
        not_after_s=certificate.not_valid_after_utc.timestamp(),
        public_key=key,
    )


def key_id(key: EllipticCurvePublicKey) -> str:
    """A public key's name: SHA-256 of its DER, in hexadecimal."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _one(subject: x509.Name, oid: x509.ObjectIdentifier) -> str:
    found = subject.get_attributes_for_oid(oid)
    return str(found[0].value) if len(found) == 1 else ""


def _load_own(context: ssl.SSLContext, tls: TlsFiles) -> None:
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            tls.certificate, "tls.certificate", f"a PEM certificate whose key is {tls.key}", _reason(error)
        ) from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
