"""Identifiers as 64-bit hashes: enough to tell patients apart, not to name them."""

import hashlib
import re

import numpy as np


def hash_id(text: str, key: bytes = b"") -> np.ndarray:
    """uint32[2]: a keyed 64-bit hash of an identifier; zero for the empty string (unknown).

    With a secret `key` (at most 64 bytes) the hash cannot be reversed by trying all record numbers.
    """
    if not text:
        return np.zeros(2, np.uint32)
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=key).digest()
    return np.frombuffer(digest, np.uint32).copy()


def text_id(text: str) -> np.ndarray:
    """uint32[2]: the hash of a report up to case and white space; equal reports are the same answer in retrieval."""
    return hash_id(re.sub(r"\s+", " ", text).strip().lower())
