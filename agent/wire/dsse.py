"""DSSE envelopes (Dead Simple Signing Envelope 1.0): framing of signed bytes, without keys.

Rules: what is signed is `pae(type, payload)`, never the envelope; whoever verified an envelope parses the `payload` it
holds, byte for byte. A `keyid` is a hint. Unknown fields of the envelope are ignored, as the specification asks.
Not handled here: signatures and whom to trust (agent.artifacts.sign), what the payload means (wire.canonical).
"""

import base64
import binascii

import msgspec
from msgspec import Struct

from agent.errors import VerificationError

_ADVICE = "It is not a DSSE envelope, or it was damaged on its way."


class Signature(Struct, frozen=True, kw_only=True):
    sig: bytes
    keyid: str = ""


class Envelope(Struct, frozen=True, kw_only=True):
    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...] = ()


class _JsonSignature(Struct, omit_defaults=True):
    sig: str
    keyid: str = ""


class _JsonEnvelope(Struct, rename={"payload_type": "payloadType"}):
    payload: str
    payload_type: str
    signatures: tuple[_JsonSignature, ...]


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding: the bytes that a key signs."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def encode(envelope: Envelope) -> bytes:
    return msgspec.json.encode(
        _JsonEnvelope(
            payload=base64.b64encode(envelope.payload).decode(),
            payload_type=envelope.payload_type,
            signatures=tuple(
                _JsonSignature(sig=base64.b64encode(signature.sig).decode(), keyid=signature.keyid)
                for signature in envelope.signatures
            ),
        )
    )


def decode(data: bytes) -> Envelope:
    """The envelope in `data`; raises VerificationError. Both base64 alphabets are accepted, as DSSE demands."""
    try:
        found = msgspec.json.decode(data, type=_JsonEnvelope)
        return Envelope(
            payload_type=found.payload_type,
            payload=_from_base64(found.payload),
            signatures=tuple(
                Signature(sig=_from_base64(signature.sig), keyid=signature.keyid) for signature in found.signatures
            ),
        )
    except (msgspec.DecodeError, UnicodeError, RecursionError, binascii.Error) as error:
        raise VerificationError(f"cannot read the envelope: {error}", _ADVICE) from error


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text.translate({ord("-"): "+", ord("_"): "/"}).encode("ascii"), validate=True)
