"""Bytes at rest under a key of this device: AES-256-GCM (the server's only door to cryptography).

A sealed file is a nonce of 12 bytes, then the ciphertext with its tag (NIST SP 800-38D). The file's
name is authenticated with it, so that files cannot be exchanged for one another.
"""

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agent.errors import BadConfig, Corrupt

_KEY_BYTES = 32
_NONCE_BYTES = 12


class Seal:
    """Seals and opens with one key."""

    def __init__(self, key_file: Path) -> None:
        """Read the key.

        Raises:
            BadConfig: it cannot be read, or does not have 32 bytes.
        """
        try:
            key = key_file.read_bytes()
        except OSError as error:
            raise BadConfig(f"cannot read the key {key_file}: {error.strerror}") from error
        if len(key) != _KEY_BYTES:
            raise BadConfig(f"cannot use the key {key_file}: {len(key)} bytes, not {_KEY_BYTES}")
        self._cipher = AESGCM(key)

    def seal(self, data: bytes, *, name: str) -> bytes:
        """The sealed form of a file's bytes; a fresh nonce each time."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, name.encode())

    def open(self, sealed: bytes, *, name: str) -> bytes:
        """What was sealed under that name.

        Raises:
            Corrupt: it was sealed with another key or under another name, or is damaged.
        """
        try:
            nonce, body = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
            return self._cipher.decrypt(nonce, body, name.encode())
        except (InvalidTag, ValueError) as error:
            raise Corrupt(f"cannot open {name}: another key, or damaged") from error
