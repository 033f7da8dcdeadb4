"""The host's certificate, renewed while the agent runs.

Rules: a renewed certificate is for the same key, so that one file changes at a time and whatever crashes leaves a pair
that fits. It is renewed once two thirds of its life are over; as long as that fails the old one serves. Not handled
here: key and first certificate (`host.identity`).
"""

import os
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import anyio
import structlog
from anyio import to_thread

from agent.errors import FailedError, RollwayError, VerificationError
from agent.link import enrol
from agent.link.tls import Shown, shown
from agent.linux import atomic, clock, memfd
from agent.model.roles import TlsFiles

LOOK_S_MAX: Final = 3600.0
"""The wall clock may jump: it is looked at so often."""
AGAIN_S: Final = 600.0
"""After how long it is tried again: the last third of a certificate's life has room for thousands of tries."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def keep_renewed(tls: TlsFiles, coordinators: Sequence[str], context: ssl.SSLContext) -> None:
    """Renew the certificate of `context` in time, for ever; the link takes it at its next connection.

    Whatever is wrong with the files or the coordinator is said and tried again: no app may feel it.
    """
    while True:
        wait_s = AGAIN_S
        try:
            due_in_s = _renewal_in_s(await to_thread.run_sync(_certificate, tls))
            if due_in_s > 0:
                wait_s = min(due_in_s, LOOK_S_MAX)
            else:
                await _renew(tls, coordinators, context)
        except (RollwayError, OSError, ValueError) as error:
            log.warning("cannot renew the certificate", reason=str(error))
        await anyio.sleep(wait_s)


async def _renew(tls: TlsFiles, coordinators: Sequence[str], context: ssl.SSLContext) -> None:
    sent = await enrol.renew(coordinators, context)
    pem, new = await to_thread.run_sync(_checked, tls, sent)
    await to_thread.run_sync(atomic.write_atomically, Path(tls.certificate), pem)
    context.load_cert_chain(tls.certificate, tls.key)
    log.info("certificate renewed", valid_until=datetime.fromtimestamp(new.not_after_s, UTC).isoformat())


def _certificate(tls: TlsFiles) -> Shown:
    try:
        return shown(tls.certificate, tls.key, tls.ca)
    except OSError as error:
        raise FailedError(f"cannot use {tls.certificate} with {tls.key} and {tls.ca}: {error}") from error


def _checked(tls: TlsFiles, sent: str) -> tuple[bytes, Shown]:
    """A new certificate, as it may be kept: for our name and our key, by our authority."""
    with os.fdopen(memfd.create("certificate"), "wb") as file:
        try:
            pem = ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(sent.strip())).encode()
            file.write(pem)
            file.flush()
            new = shown(f"/proc/self/fd/{file.fileno()}", tls.key, tls.ca)
        except (OSError, ValueError) as error:
            raise VerificationError(f"the coordinator sent a certificate that is not for our key: {error}") from error
    if new.name != _certificate(tls).name:
        raise VerificationError(f"the coordinator sent a certificate that is not for us, but {new.name!r:.80}")
    return pem, new


def _renewal_in_s(certificate: Shown) -> float:
    left_s = certificate.not_after_s - clock.now().wall_ms / 1000
    return left_s - (certificate.not_after_s - certificate.not_before_s) / 3
