"""A host's words with a coordinator about its certificate: the first one, by a token, and each next one, by the last.

Rules: the authority's certificate comes over a connection that nobody vouches for, and nothing but the question for it
is sent there; it is the one of the fingerprint in the token or nothing goes on. From then on the coordinator's
certificate must come from it. Any coordinator will do, and asking twice with the same key gives the same.
"""

import hashlib
import os
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import aiohttp
import msgspec
from msgspec import Struct

from agent.errors import FailedError, NotFoundError, RefusedError, RollwayError, UnreachableError, UsageError
from agent.link.tls import VERSION
from agent.model.ids import EnvironmentName, HostName

ANSWER_BYTES_MAX: Final = 64 << 10
NO_ANSWER: Final = "no answer in time"
_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, sock_connect=10)
_BY_CODE: Final[dict[int, type[RollwayError]]] = {
    error.exit_code: error for error in (UsageError, RefusedError, NotFoundError, UnreachableError)
}
_NOT_YET_VALID, _EXPIRED, _OTHER_NAME, _OTHER_ADDRESS = 9, 10, 62, 64
"""OpenSSL's numbers."""

T = TypeVar("T")


class Joined(Struct, frozen=True, kw_only=True):
    """What a host is told that was let in."""

    host: HostName
    certificate: str
    environments: tuple[EnvironmentName, ...]
    labels: dict[str, str]


class _Renewed(Struct):
    certificate: str


class _Error(Struct):
    error: str
    what_to_do: str = ""
    code: int = 1


async def fetch_authority(coordinators: Sequence[str], fingerprint: str) -> str:
    """The authority's certificate, PEM, if it is the one of `fingerprint`. Raises UnreachableError, RefusedError."""
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.minimum_version = VERSION
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE

    async def fetch(url: str) -> str:
        answer = await _request("GET", f"{url}/join/v1/authority", blind, None)
        try:
            der = ssl.PEM_cert_to_DER_cert(answer.decode("ascii").strip())
        except ValueError:
            raise FailedError(
                f"{url} answered with something else than a certificate", "Is it a coordinator?"
            ) from None
        if hashlib.sha256(der).hexdigest() != fingerprint:
            raise RefusedError(
                f"{url} is not the coordinator that the token is of: its authority has another fingerprint",
                "Use a token of this coordinator. If it is one, somebody stands between this host and it.",
            )
        return ssl.DER_cert_to_PEM_cert(der)

    return await _first(coordinators, fetch)


async def join(coordinators: Sequence[str], authority: str, secret: str, name: HostName, csr: str) -> Joined:
    """Spend the token's secret on a certificate for the key of `csr`."""
    try:
        context = ssl.create_default_context(cadata=authority)
    except ssl.SSLError as error:
        raise FailedError(f"cannot use the authority's certificate: {error.reason}") from error
    context.minimum_version = VERSION
    body = msgspec.json.encode({"secret": secret, "name": name, "csr": csr})

    async def ask(url: str) -> Joined:
        return _decoded(await _request("POST", f"{url}/join/v1/hosts", context, body), Joined, url)

    return await _first(coordinators, ask)


async def renew(coordinators: Sequence[str], context: ssl.SSLContext) -> str:
    """The next certificate, PEM, for the key of the one that `context` shows."""

    async def ask(url: str) -> str:
        return _decoded(await _request("POST", f"{url}/agent/v1/certificate", context, None), _Renewed, url).certificate

    return await _first(coordinators, ask)


async def why_refused(url: str, context: ssl.SSLContext) -> RollwayError | None:
    """What a coordinator says to the certificate of `context` that it does not let in: an upgrade shows no answer."""
    try:
        await _request("GET", f"{url}/agent/v1/link", context, None)
    except UnreachableError:
        return None
    except RollwayError as error:
        return error
    return None


async def _first(coordinators: Sequence[str], ask: Callable[[str], Awaitable[T]]) -> T:
    """What the first coordinator says that answers at all."""
    reasons = []
    for url in coordinators:
        try:
            return await ask(url.rstrip("/"))
        except UnreachableError as error:
            reasons.append(error)
    told = "; ".join(error.error for error in reasons)
    raise UnreachableError(told, reasons[0].what_to_do)


def _reason(error: Exception) -> str:
    """In the system's words: the library's name the objects that it works with."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError):
        known = cause.errno is not None and cause.errno > 0
        return (os.strerror(cause.errno or 0) if known else cause.strerror or str(cause)).lower() or NO_ANSWER
    return str(cause) or NO_ANSWER


async def _request(method: str, url: str, context: ssl.SSLContext, body: bytes | None) -> bytes:
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as http,
            http.request(method, url, ssl=context, data=body, allow_redirects=False) as response,
        ):
            answer = b""
            async for chunk in response.content.iter_any():
                answer += chunk
                if len(answer) > ANSWER_BYTES_MAX:
                    raise FailedError(f"{url} answered with more than {ANSWER_BYTES_MAX} bytes")
    except aiohttp.ClientConnectorCertificateError as error:
        raise _not_trusted(url, error.certificate_error) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise UnreachableError(
            f"cannot reach {url}: {_reason(error)}",
            "Look whether the coordinator runs and this host can reach that address; --coordinator gives another one.",
        ) from error
    if response.status in (200, 201):
        return answer
    try:
        told = msgspec.json.decode(answer, type=_Error)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise FailedError(f"{url} answered {response.status}", "Is it the address of a coordinator?") from None
    raise _BY_CODE.get(told.code, FailedError)(told.error, told.what_to_do)


def _not_trusted(url: str, error: Exception) -> RollwayError:
    if not isinstance(error, ssl.SSLCertVerificationError):
        return UnreachableError(f"cannot trust {url}: {error}", "Look at the coordinator's certificate.")
    match error.verify_code:
        case code if code in (_NOT_YET_VALID, _EXPIRED):
            word = "is not valid yet" if code == _NOT_YET_VALID else "has expired"
            return FailedError(
                f"by this host's clock the certificate of {url} {word}",
                "Compare the clocks of this host and of the coordinator (`timedatectl`), then try again.",
            )
        case code if code in (_OTHER_NAME, _OTHER_ADDRESS):
            return FailedError(
                f"the certificate of {url} is for another name: {error.verify_message}",
                "Add this address to `advertise` in coordinator.toml and restart the coordinator.",
            )
        case _:
            return RefusedError(f"cannot trust {url}: {error.verify_message}", "Use a token of this coordinator.")


def _decoded(answer: bytes, kind: type[T], url: str) -> T:
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise FailedError(
            f"cannot read what {url} answered: {error}", "Compare the versions of this Rollway and the coordinator."
        ) from error
