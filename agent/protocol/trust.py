"""Signed envelopes (DSSE v1): every manifest and every command is one, from the first day.

https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
"""

import json
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey

from agent.errors import BadInput, Corrupt, Refused

MANIFEST = "application/vnd.trimtab.manifest.v1+json"
COMMAND = "application/vnd.trimtab.command.v1+json"


def generate() -> tuple[bytes, bytes]:
    """Make an Ed25519 key pair: (private PKCS #8 PEM, public SPKI PEM)."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private, public


def signer(private_pem: bytes) -> Signer:
    """Load a signer from a private key.

    Raises:
        BadInput: it is not an unencrypted Ed25519 private key in PEM.
    """
    try:
        key = serialization.load_pem_private_key(private_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadInput(f"cannot use the private key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput(f"cannot use the private key: {type(key).__name__} is not Ed25519")
    return CryptoSigner(key)


def public_key(public_pem: bytes) -> Key:
    """Load a key to verify with.

    Raises:
        BadInput: it is not an Ed25519 public key in PEM.
    """
    try:
        key = serialization.load_pem_public_key(public_pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadInput(f"cannot use the public key: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BadInput(f"cannot use the public key: {type(key).__name__} is not Ed25519")
    return SSlibKey.from_crypto(key)


def load_keys(folder: Path) -> tuple[Key, ...]:
    """Load every `*.pub` in a folder, in order of name.

    Raises:
        BadInput: one of them is not a key; its name is in the message.
    """
    keys = []
    for path in sorted(folder.glob("*.pub")):
        try:
            keys.append(public_key(path.read_bytes()))
        except BadInput as error:
            raise BadInput(f"{error} ({path})") from error
    return tuple(keys)


def seal(payload: bytes, *, payload_type: str, by: Signer) -> bytes:
    """Wrap and sign `payload`; return the envelope as JSON."""
    envelope = Envelope(payload, payload_type, {})
    envelope.sign(by)
    return json.dumps(envelope.to_dict(), separators=(",", ":")).encode()


def open_sealed(data: bytes, *, payload_type: str, keys: Sequence[Key]) -> bytes:
    """Return the payload of an envelope that one of `keys` has signed.

    Raises:
        Corrupt: it is no envelope, or its signature does not fit its payload.
        Refused: no key is known, none of ours signed it, or it is of another type.
    """
    try:
        document = json.loads(data)
        envelope = Envelope.from_dict(document)
    except Exception as error:  # whatever a hostile document makes the parser raise
        raise Corrupt(f"cannot read the envelope: {type(error).__name__}: {error}") from error
    if envelope.payload_type != payload_type:
        raise Refused(
            f"cannot accept an envelope of type {str(envelope.payload_type)[:80]!r}: "
            f"{payload_type!r} belongs here"
        )
    if not keys:
        raise Refused("cannot verify the envelope: no trusted key is configured")
    known = {key.keyid for key in keys}
    if not known & set(envelope.signatures):
        signed_by = ", ".join(keyid[:12] for keyid in list(envelope.signatures)[:3]) or "nobody"
        raise Refused(f"cannot trust the envelope: signed by {signed_by}, not by a trusted key")
    try:
        envelope.verify(list(keys), 1)
    except VerificationError as error:
        raise Corrupt(f"cannot verify the envelope: {error}") from error
    return envelope.payload
