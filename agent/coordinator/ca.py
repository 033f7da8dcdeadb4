"""A certificate authority of our own: one per installation, P-256, in one folder.

Rules: the CN of a certificate is the name, the OU the role; keys are 0600. A host's certificate proves its name, so
whoever holds the authority's key can be any host: the folder stays where it was made.
"""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.errors import FailedError, UsageError
from agent.linux import atomic, clock

Kind = Literal["coordinator", "agent"]

_AUTHORITY: Final = timedelta(days=3650)
MEMBER: Final = timedelta(days=365)
HOST: Final = timedelta(days=90)
"""A joined host's certificate: renewed by its agent after two thirds of it."""
_EARLIER: Final = timedelta(hours=1)
"""Clocks of hosts differ."""
_CERTIFICATE: Final = "ca.pem"
_KEY: Final = "ca.key"


def make_ca(folder: Path) -> None:
    """Write `ca.pem` and `ca.key`; one that is there is kept. Raises OSError."""
    if (folder / _CERTIFICATE).exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rollway")])
    certificate = (
        _certificate(name, name, key.public_key(), _AUTHORITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(is_authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    atomic.write_atomically(folder / _KEY, _pem(key))
    atomic.write_atomically(folder / _CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def is_authority(folder: Path) -> bool:
    """Whether certificates can be made here: `ca.key` lies beside `ca.pem`."""
    return (folder / _CERTIFICATE).exists() and (folder / _KEY).exists()


def fingerprint(folder: Path) -> str:
    """SHA-256 of the authority's certificate, in hexadecimal. Raises FailedError."""
    return _load(folder, "tell the authority's fingerprint")[0].fingerprint(hashes.SHA256()).hex()


def issue(folder: Path, name: str, addresses: tuple[str, ...], kind: Kind) -> tuple[bytes, bytes]:
    """A new certificate and its key, both PEM, by the authority in `folder`; `addresses` are IPs or DNS names."""
    key = new_key()
    return sign(folder, name, addresses, kind, key=public_key(key)), key


def new_key() -> bytes:
    """A P-256 key, PEM."""
    return _pem(ec.generate_private_key(ec.SECP256R1()))


def public_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    """The public half of a key, PEM. Raises FailedError."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except ValueError as error:
        raise FailedError(f"cannot read a private key: {error}", "Restore the file from a backup.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FailedError("cannot use a private key of another kind than P-256", "Give one that is.")
    return key.public_key()


def sign(
    folder: Path,
    name: str,
    addresses: tuple[str, ...],
    kind: Kind,
    *,
    key: ec.EllipticCurvePublicKey,
    lifetime: timedelta = MEMBER,
) -> bytes:
    """A certificate, PEM, for the public `key` of somebody who was asked who they are already. Raises FailedError."""
    authority, signer = _load(folder, f"issue a certificate for {name}")
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, kind),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if kind == "coordinator":
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    names = [_general(address) for address in dict.fromkeys((*addresses, name))]
    certificate = (
        _certificate(subject, authority.subject, key, lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def read_request(csr: bytes, name: str) -> ec.EllipticCurvePublicKey:
    """The key for which a host asks for a certificate. Raises UsageError.

    Nothing but the key is ever taken from a request; one that asks for more than its own name is refused all the same.
    """
    refused = "Run `rollway agent join` again; it makes a right one."
    try:
        request = x509.load_pem_x509_csr(csr)
        key = request.public_key()
        extensions = list(request.extensions)
        valid = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise UsageError("the certificate request cannot be read", refused) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1) or not valid:
        raise UsageError("the certificate request is not signed by a P-256 key of its own", refused)
    if [(part.oid, part.value) for part in request.subject] != [(NameOID.COMMON_NAME, name)]:
        raise UsageError(f"the certificate request is not for {name} alone", refused)
    if extensions:
        raise UsageError("the certificate request asks for extensions", refused)
    return key


def _load(folder: Path, what: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        authority = x509.load_pem_x509_certificate(atomic.read(folder / _CERTIFICATE))
        signer = serialization.load_pem_private_key(atomic.read(folder / _KEY), password=None)
    except (OSError, ValueError) as error:
        raise FailedError(f"cannot {what}: {error}", f"Restore the authority's files in {folder}.") from error
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise FailedError(f"cannot {what}: the authority's key is of another kind than P-256")
    return authority, signer


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    now = datetime.fromtimestamp(clock.now().wall_ms // 1000, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _general(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
