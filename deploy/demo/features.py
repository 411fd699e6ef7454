"""A file as Magika's model takes it: the first and the last kilobyte, as tokens.

Written after magika 1.0's "features extraction v2" (Fratantonio et al., "Magika: AI-Powered
Content-Type Detection", 2024), without importing it: its package loads onnxruntime.
"""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

BLOCK_BYTES = 4096
SIDE_TOKENS = 1024
"""Tokens from each end of the file."""
TOKENS = 2 * SIDE_TOKENS
PADDING = 256
LEAST_BYTES = 8
"""With fewer meaningful bytes Magika decides by rule, without its model."""

Tokens = npt.NDArray[np.int32]


def tokens(first: bytes, last: bytes) -> Tokens | None:
    """Turn the file's first and last (at most) 4096 bytes into int32 [2048] in 0..256.

    None where fewer than 8 bytes are left after the white space at the beginning.
    """
    head = np.frombuffer(first.lstrip()[:SIDE_TOKENS], np.uint8)
    tail = np.frombuffer(last.rstrip()[-SIDE_TOKENS:], np.uint8)
    if head.size < LEAST_BYTES:
        return None
    row = np.full(TOKENS, PADDING, np.int32)
    row[: head.size] = head
    # An empty tail leaves the padding: row[TOKENS - 0:] is empty too.
    row[TOKENS - tail.size :] = tail
    return row


def read(path: Path) -> Tokens | None:
    """Read at most two blocks of a file and turn them into tokens.

    None where the model has nothing to decide, or the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            first = file.read(BLOCK_BYTES)
            file.seek(max(0, size_bytes - BLOCK_BYTES))
            last = file.read(BLOCK_BYTES)
    except OSError:
        return None
    return tokens(first, last)
