"""Identifiers as 64-bit hashes: enough to tell patients apart, not to name them."""

import hashlib
import re

import numpy as np

_NAME = re.compile(r"id-([0-9a-f]{16})")


def hash_id(text: str, key: bytes = b"") -> np.ndarray:
    """uint32[2]: a keyed 64-bit hash of an identifier; zero for the empty string (unknown).

    With a secret `key` (at most 64 bytes) the hash cannot be reversed by trying all record numbers. A pseudonym (see
    `pseudonym`) stands for the hash that it names, under any key.
    """
    if not text:
        return np.zeros(2, np.uint32)
    if named := _NAME.fullmatch(text):
        return np.frombuffer(bytes.fromhex(named[1]), np.uint32).copy()
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=key).digest()
    return np.frombuffer(digest, np.uint32).copy()


def pseudonym(text: str, key: bytes) -> str:
    """`id-` and the 16 hexadecimal digits of `hash_id`: what stands for an identifier in files and messages."""
    return f"id-{hash_id(text, key).tobytes().hex()}" if text else ""


def as_number(pair: np.ndarray) -> int:
    """A hash uint32[2] as one number; 0 is unknown."""
    return int(np.ascontiguousarray(pair, np.uint32).view(np.uint64)[0])


def text_id(text: str) -> np.ndarray:
    """uint32[2]: the hash of a report up to case and white space; equal reports are the same answer in retrieval.

    It has no key: it is computed from the report when a batch is made, by whoever can read the report anyway, so that
    it is the same everywhere, and is never written to a file, where a guessed report could be tried against it.
    """
    return hash_id(re.sub(r"\s+", " ", text).strip().lower())
