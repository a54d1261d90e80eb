"""The side of the hold-out on which a document falls: a function of its content alone."""

from __future__ import annotations

import hashlib


def heldout_share(content: bytes) -> float:
    """Where a document falls in [0, 1): the first 53 bits of the SHA-256 of its content.

    It is held out below the share `Corpus.heldout`.
    """
    return (int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 11) / (1 << 53)
