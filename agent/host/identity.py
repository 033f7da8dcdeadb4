"""The host's key, made as it joins; its request for a first certificate; the check of what comes back.

Rules: the key is made here, stays, and is never sent. Not handled here: an agent that runs (`host.certificate`), which
does without the library for these.
"""

import hashlib
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.errors import FailedError, VerificationError
from agent.linux import atomic
from agent.model.ids import HostName

Key = ec.EllipticCurvePrivateKey


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
