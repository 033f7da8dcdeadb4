"""The host's key and certificate: made once, and the certificate renewed while the agent runs.

Rules: the key is made here, stays, and is never sent; a renewed certificate is for the same key, so that one file
changes at a time and whatever crashes leaves a pair that fits. The certificate is renewed once two thirds of its life
are over; as long as that fails the old one serves.
"""

import hashlib
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import anyio
import structlog
from anyio import to_thread
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.errors import FailedError, RollwayError, VerificationError
from agent.link import enrol
from agent.linux import atomic, clock
from agent.model.ids import HostName
from agent.model.roles import TlsFiles

Key = ec.EllipticCurvePrivateKey
LOOK_S_MAX: Final = 3600.0
"""The wall clock may jump: it is looked at so often."""
AGAIN_S: Final = 600.0
"""After how long it is tried again: the last third of a certificate's life has room for thousands of tries."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def keep_key(path: Path) -> Key:
    """The key in the file at `path`, which is made, with a new key, when it is missing. Raises OSError, FailedError."""
    if not path.exists():
        new = ec.generate_private_key(ec.SECP256R1())
        pem = new.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        atomic.create_exclusive(path, pem)
    try:
        key = serialization.load_pem_private_key(atomic.read(path), password=None)
    except ValueError:
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FailedError(
            f"cannot use the key in {path}: it is no P-256 key", "Remove the file: joining makes a new key."
        )
    return key


def fingerprint(der: bytes) -> str:
    """SHA-256 of a certificate, in hexadecimal."""
    return hashlib.sha256(der).hexdigest()


def request_for(name: HostName, key: Key) -> str:
    """The request for a certificate, PEM: the name and the public key, nothing else."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def checked(pem: str, name: str, key: ec.EllipticCurvePublicKey) -> bytes:
    """A certificate as it may be kept: for this name and this key. Raises VerificationError."""
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except ValueError as error:
        raise VerificationError(f"the coordinator sent a certificate that cannot be read: {error}") from error
    names = [str(part.value) for part in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [name] or certificate.public_key() != key:
        raise VerificationError(f"the coordinator sent a certificate that is not for the key of {name}")
    return certificate.public_bytes(serialization.Encoding.PEM)


async def keep_renewed(tls: TlsFiles, coordinators: Sequence[str], context: ssl.SSLContext) -> None:
    """Renew the certificate of `context` in time, for ever; the link takes it at its next connection.

    Whatever is wrong with the files or the coordinator is said and tried again: no app may feel it.
    """
    while True:
        wait_s = AGAIN_S
        try:
            due_in_s = _renewal_in_s(_certificate(tls))
            if due_in_s > 0:
                wait_s = min(due_in_s, LOOK_S_MAX)
            else:
                await _renew(tls, coordinators, context)
        except (RollwayError, OSError, ValueError) as error:
            log.warning("cannot renew the certificate", reason=str(error))
        await anyio.sleep(wait_s)


async def _renew(tls: TlsFiles, coordinators: Sequence[str], context: ssl.SSLContext) -> None:
    old = _certificate(tls)
    key = old.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise FailedError("the certificate is for another kind of key than P-256", "Renew it where it was made.")
    name = str(old.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    pem = checked(await enrol.renew(coordinators, context), name, key)
    await to_thread.run_sync(atomic.write_atomically, Path(tls.certificate), pem)
    context.load_cert_chain(tls.certificate, tls.key)
    until = _certificate(tls).not_valid_after_utc
    log.info("certificate renewed", valid_until=until.isoformat())


def _certificate(tls: TlsFiles) -> x509.Certificate:
    return x509.load_pem_x509_certificate(atomic.read(Path(tls.certificate)))


def _left_s(certificate: x509.Certificate) -> float:
    now = datetime.fromtimestamp(clock.now().wall_ms / 1000, UTC)
    return (certificate.not_valid_after_utc - now).total_seconds()


def _renewal_in_s(certificate: x509.Certificate) -> float:
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return _left_s(certificate) - life.total_seconds() / 3
