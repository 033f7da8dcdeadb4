"""Who is at the other end of a coordinator's connection, by certificate.

Rules: a certificate's CN is the host's name, its OU the role, so that a coordinator's certificate is no agent's. TLS
checks a peer's expiry at the handshake only; whoever keeps a connection compares `Peer.not_after_s` himself, and so he
does with who was removed since.
"""

import hashlib
from typing import Final

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from msgspec import Struct

AGENT_ROLE: Final = "agent"


class Peer(Struct, frozen=True, kw_only=True):
    """Who is at the other end, by a certificate that our authority signed."""

    name: str
    role: str
    not_after_s: float
    """Seconds since 1970 at which the certificate expires."""
    public_key: EllipticCurvePublicKey


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
