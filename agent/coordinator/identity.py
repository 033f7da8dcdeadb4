"""The coordinator's own names, authority and certificate, made at its first start and kept from then on.

Rules: what is there is used; nothing is made in the place of files of which some are missing, for a new authority would
lock every host out. Where the authority is ours, the certificate is made anew when a name is added or two thirds of its
life are over, without a restart.
"""

import socket
import ssl
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import anyio
import structlog
from cryptography import x509

from agent.coordinator import ca
from agent.errors import FailedError, RollwayError, SettingsError
from agent.linux import atomic, clock
from agent.model.address import parse_address
from agent.model.roles import CoordinatorSettings, TlsFiles

_LOOK_S: Final = 3600.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def urls(settings: CoordinatorSettings) -> tuple[str, ...]:
    """By which agents and operators reach this coordinator."""
    if settings.advertise:
        return settings.advertise
    found = []
    for text in settings.listen:
        address = parse_address(text)
        host = socket.gethostname().lower() if ip_address(address.host).is_unspecified else address.host
        found.append(f"https://[{host}]:{address.port}" if ":" in host else f"https://{host}:{address.port}")
    return tuple(dict.fromkeys(found))


def prepare(settings: CoordinatorSettings) -> None:
    """Make what is missing of authority and certificate. Raises SettingsError, FailedError."""
    tls = settings.tls
    own, authority = (Path(tls.certificate), Path(tls.key)), Path(tls.ca).parent
    try:
        if not Path(tls.ca).exists():
            if any(file.exists() for file in own):
                raise SettingsError(tls.ca, "tls.ca", "the authority of the certificate that is there", "no such file")
            ca.make_ca(authority)
            log.info("authority made", folder=str(authority), fingerprint=ca.fingerprint(authority))
        if not ca.is_authority(authority):
            return
        if not all(file.exists() for file in own) or _is_due(tls, _names(settings)):
            _issue(settings)
    except OSError as error:
        raise FailedError(
            f"cannot make the coordinator's certificate: {error.filename}: {error.strerror}",
            "Give the coordinator a folder for [tls] that it may write to.",
        ) from error


async def keep(settings: CoordinatorSettings, context: ssl.SSLContext) -> None:
    """Renew the certificate of `context` in time, for as long as the coordinator runs."""
    while ca.is_authority(Path(settings.tls.ca).parent):
        await anyio.sleep(_LOOK_S)
        try:
            if _is_due(settings.tls, frozenset()):
                _issue(settings)
                context.load_cert_chain(settings.tls.certificate, settings.tls.key)
        except (OSError, RollwayError) as error:
            log.error("cannot renew the coordinator's certificate", reason=str(error))  # noqa: TRY400


def _issue(settings: CoordinatorSettings) -> None:
    """The key stays: a crash between two files would else leave a certificate of another key."""
    tls = settings.tls
    certificate, key = Path(tls.certificate), Path(tls.key)
    for folder in {certificate.parent, key.parent}:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not key.exists():
        atomic.create_exclusive(key, ca.new_key())
    public = ca.public_key(key.read_bytes())
    names = tuple(sorted(_names(settings)))
    atomic.write_atomically(
        certificate, ca.sign(Path(tls.ca).parent, "coordinator", names, "coordinator", key=public), mode=0o644
    )
    log.info("certificate made", names=names)


def _names(settings: CoordinatorSettings) -> frozenset[str]:
    return frozenset(urlsplit(url).hostname or "" for url in urls(settings))


def _is_due(tls: TlsFiles, names: frozenset[str]) -> bool:
    """Whether a certificate of our own authority is nearly over, lacks a name, or is not the key's."""
    try:
        certificate = x509.load_pem_x509_certificate(atomic.read(Path(tls.certificate)))
        authority = x509.load_pem_x509_certificate(atomic.read(Path(tls.ca)))
    except ValueError as error:
        raise SettingsError(tls.certificate, "tls", "PEM certificates", str(error)) from error
    if certificate.issuer != authority.subject:
        return False
    if ca.public_key(atomic.read(Path(tls.key))) != certificate.public_key():
        return True
    known = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    has = {*known.get_values_for_type(x509.DNSName), *map(str, known.get_values_for_type(x509.IPAddress))}
    left = timedelta(seconds=certificate.not_valid_after_utc.timestamp() - clock.now().wall_ms / 1000)
    return not names <= has or left < (certificate.not_valid_after_utc - certificate.not_valid_before_utc) / 3
