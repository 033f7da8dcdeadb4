"""DSSE envelopes, against the specification's own example and against another implementation."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib import dsse as oracle
from securesystemslib.signer._crypto_signer import CryptoSigner

from agent.errors import VerificationError
from agent.wire import dsse

envelopes = st.builds(
    dsse.Envelope,
    payload_type=st.text(min_size=1),
    payload=st.binary(),
    signatures=st.lists(
        st.builds(dsse.Signature, sig=st.binary(min_size=1), keyid=st.text()), unique_by=lambda s: s.keyid, max_size=3
    ).map(tuple),
)


def test_pae_is_the_specifications_example() -> None:
    """The bytes to be signed are those that the DSSE specification shows."""
    assert (
        dsse.pae("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@given(envelopes)
def test_written_envelopes_are_read_back(envelope: dsse.Envelope) -> None:
    """An envelope survives being written and read."""
    assert dsse.decode(dsse.encode(envelope)) == envelope


@given(envelopes)
def test_pae_is_that_of_securesystemslib(envelope: dsse.Envelope) -> None:
    """Whatever type and payload, another implementation would sign the same bytes."""
    other = oracle.Envelope(envelope.payload, envelope.payload_type, {})
    assert dsse.pae(envelope.payload_type, envelope.payload) == other.pae()


def test_an_envelope_of_securesystemslib_is_read() -> None:
    """An envelope that another implementation signed is read, and what it signed is what we would sign."""
    signer = CryptoSigner.generate_ed25519()
    other = oracle.Envelope(b"payload \x00\xff", "text/x", {})
    other.sign(signer)
    envelope = dsse.decode(json.dumps(other.to_dict()).encode())
    assert (envelope.payload, envelope.payload_type) == (b"payload \x00\xff", "text/x")
    (signature,) = envelope.signatures
    assert signature.keyid == signer.public_key.keyid
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer.public_key.keyval["public"]))
    key.verify(signature.sig, dsse.pae(envelope.payload_type, envelope.payload))


def test_securesystemslib_reads_ours() -> None:
    """Our envelope is read by another implementation with the same payload and type."""
    ours = dsse.encode(dsse.Envelope(payload_type="text/x", payload=b"\xfb\xff"))
    other = oracle.Envelope.from_dict(json.loads(ours))
    assert (other.payload, other.payload_type) == (b"\xfb\xff", "text/x")


READ = {
    "the URL alphabet of base64": b'{"payload":"-_8=","payloadType":"t","signatures":[]}',
    "a field that the specification does not know": b'{"payload":"+/8=","payloadType":"t","signatures":[],"more":1}',
}


@pytest.mark.parametrize("data", READ.values(), ids=list(READ))
def test_permitted_spellings_are_read(data: bytes) -> None:
    """What the specification permits is read."""
    assert dsse.decode(data).payload == b"\xfb\xff"


REFUSED = {
    "no signatures field": b'{"payload":"","payloadType":"t"}',
    "no payload type": b'{"payload":"","signatures":[]}',
    "base64 with a space": b'{"payload":"AA ==","payloadType":"t","signatures":[]}',
    "base64 without its padding": b'{"payload":"AA","payloadType":"t","signatures":[]}',
    "base64 with letters beyond ASCII": '{"payload":"ÄÄÄÄ","payloadType":"t","signatures":[]}'.encode(),
    "a signature that is no text": b'{"payload":"","payloadType":"t","signatures":[{"sig":1}]}',
    "no JSON": b"DSSEv1",
    "nothing": b"",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=list(REFUSED))
def test_broken_envelopes_are_refused(data: bytes) -> None:
    """What is no envelope is refused in words for a person."""
    with pytest.raises(VerificationError, match="cannot read the envelope"):
        dsse.decode(data)
