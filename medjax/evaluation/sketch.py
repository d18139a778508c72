"""A sketch of the training data that others can ask whether they hold near-duplicates of it, without the data.

Every item becomes a short vector: pictures and volumes a thumbnail, ECGs their leads at few times, each centred and
scaled, so that brightness, contrast and gain do not matter. Of the vector, less the mean of the training items,
`TABLES` groups of `BITS` signs of random projections are taken (SimHash, Charikar, STOC 2002): vectors at an angle t
agree in a sign with probability 1 - t / pi. Texts give the minima of hashes of their words in runs of three (MinHash,
Broder 1997), two in a group, and lab values are hashed as they are, to three digits. A group, hashed with the sketch's
salt (BLAKE2b), is a key of 64 bits; an item is a near-duplicate where any of its keys is in the sketch.

What it tells: the salt lies in the sketch, so whoever can guess an item can confirm that it was in the training data,
and pictures cannot be guessed but reports and lab values can. It also holds the mean vector of the training items.
"""

import contextlib
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medjax.data.readers.image import decode
from medjax.data.records import decode_text
from medjax.data.volumes import resize
from medjax.errors import UserError

FILE = "sketch.npz"
FORMAT = "medjax-sketch-1"
TABLES, BITS = 24, 48
_SIDE, _CUBE, _TIMES, _SHINGLE, _MINIMA = 16, 8, 48, 3, 2


@dataclass(frozen=True)
class Sketch:
    """salt: of the keys. kinds: `{modality: kind}`. keys: `{modality: uint64[k], sorted}`. means: `{modality:
    float32[d]}`, of vectors. items: `{modality: training items}`. false: `{modality: (held-out items that match,
    held-out items)}` (`false_matches`).
    """

    salt: bytes
    kinds: Mapping[str, str]
    keys: Mapping[str, np.ndarray]
    means: Mapping[str, np.ndarray]
    items: Mapping[str, int]
    false: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def holds(self, modality: str, raw: Any) -> bool:
        """Whether a raw item is a near-duplicate of a training item.

        Raises:
          UserError: the item cannot be read.
        """
        found = keys_of(self.kinds[modality], raw, self.salt, self.means.get(modality))
        known = self.keys[modality]
        at = np.searchsorted(known, found)
        return bool((known[np.minimum(at, len(known) - 1)] == found).any()) if len(known) and len(found) else False

    def save(self, directory: Path) -> None:
        """Writes sketch.npz."""
        about = {"format": FORMAT, "salt": self.salt.hex(), "kinds": dict(self.kinds), "items": dict(self.items)}
        about["false"] = {m: list(v) for m, v in self.false.items()}
        arrays = {f"keys/{m}": x for m, x in self.keys.items()} | {f"mean/{m}": x for m, x in self.means.items()}
        np.savez(directory / FILE, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)


def read(directory: str | Path) -> Sketch:
    """Raises:
    UserError: there is none, or it cannot be read.
    """
    path = Path(directory) / FILE
    if not path.is_file():
        raise UserError(f"{directory} has no {FILE}; export with --sketch")
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = dict(found)
        about = json.loads(arrays.pop("about").tobytes())
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']!r}, expected {FORMAT!r}")
        groups = {"keys": {}, "mean": {}}
        for name, x in arrays.items():
            group, _, modality = name.partition("/")
            groups[group][modality] = x
        false = {m: tuple(v) for m, v in about["false"].items()}
        salt = bytes.fromhex(about["salt"])
        return Sketch(salt, about["kinds"], groups["keys"], groups["mean"], about["items"], false)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read as a sketch ({error}); export again") from None


def make(kinds: Mapping[str, str], training: Iterable[Mapping[str, list[Any]]], salt: bytes) -> Sketch:
    """Of the raw items of every training study; those that cannot be read are left out.

    kinds: `{modality: kind}` of those to sketch. salt: 16 random bytes.
    """
    given: dict[str, list[Any]] = {m: [] for m in kinds}
    for study in training:
        for m, kind in kinds.items():
            for raw in study[m]:
                x = _vector_or_none(kind, raw)
                if x is not None:
                    given[m].append(x)
    means = {m: np.mean(x, axis=0).astype(np.float32) for m, x in given.items() if x and kinds[m] in _VECTORS}
    keys = {
        m: np.unique(np.concatenate([_hashed(kinds[m], x, salt, means.get(m)) for x in v] or [np.zeros(0, np.uint64)]))
        for m, v in given.items()
    }
    return Sketch(salt, dict(kinds), keys, means, {m: len(v) for m, v in given.items()})


def false_matches(sketch: Sketch, held_out: Iterable[Mapping[str, list[Any]]]) -> dict[str, tuple[int, int]]:
    """`{modality: (items that match, items)}`: of studies of other patients every match is taken for false."""
    counts = {m: [0, 0] for m in sketch.kinds}
    for study in held_out:
        for m, count in counts.items():
            for found in matches(sketch, m, study[m]):
                count[0] += found
                count[1] += 1
    return {m: (a, b) for m, (a, b) in counts.items()}


def matches(sketch: Sketch, modality: str, items: Iterable[Any]) -> list[bool]:
    """Whether each item that can be read is a near-duplicate of a training item."""
    out = []
    for raw in items:
        with contextlib.suppress(UserError):
            out.append(sketch.holds(modality, raw))
    return out


def keys_of(kind: str, raw: Any, salt: bytes, mean: np.ndarray | None) -> np.ndarray:
    """uint64[t]: the keys of a raw item."""
    return _hashed(kind, _described(kind, raw), salt, mean)


def _vector_or_none(kind: str, raw: Any) -> Any:
    try:
        return _described(kind, raw)
    except UserError:
        return None


def _described(kind: str, raw: Any) -> Any:
    """What is hashed: a vector, the shingles of a text, or the digits of lab values."""
    if kind in _VECTORS:
        return _VECTORS[kind](raw)
    if kind == "text":
        words = re.findall(r"\w+", decode_text(raw).lower())
        return [" ".join(words[i : i + _SHINGLE]) for i in range(max(1, len(words) - _SHINGLE + 1))]
    if not np.isfinite(raw).any():
        raise UserError("no lab value is known, so that there is nothing to compare; leave the item out")
    return " ".join(f"{v:.3g}" for v in np.asarray(raw, np.float64).ravel())


def _picture(raw: np.ndarray) -> np.ndarray:
    """float32[256]: the thumbnail of a picture, encoded or not."""
    image = decode(raw, 1) if raw.ndim == 1 else Image.fromarray(raw.squeeze()).convert("L")
    return _unit(np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32).ravel())


def _volume(raw: Any) -> np.ndarray:
    """float32[512]: blocks of the mean of the first channel."""
    x = np.asarray(resize(raw, tuple(4 * _CUBE for _ in range(3))), np.float32)
    x = x[..., 0] if x.ndim == 4 else x
    return _unit(x.reshape(_CUBE, 4, _CUBE, 4, _CUBE, 4).mean((1, 3, 5)).ravel())


def _ecg(raw: np.ndarray) -> np.ndarray:
    """float32[C * 48]: the mean of each lead in 48 stretches of time."""
    x = np.nan_to_num(np.asarray(raw, np.float32))
    edges = np.linspace(0, x.shape[1], _TIMES + 1).astype(int)
    if x.shape[1] < _TIMES:
        raise UserError(f"an ECG of {x.shape[1]} samples is too short for a sketch; leave it out")
    parts = [x[:, a:b].mean(1) for a, b in itertools.pairwise(edges)]
    return _unit(np.stack(parts, axis=1).ravel())


_VECTORS = {"image": _picture, "volume": _volume, "ecg": _ecg}


def _unit(x: np.ndarray) -> np.ndarray:
    x = x - x.mean()
    return x / max(float(np.linalg.norm(x)), 1e-6)


def _hashed(kind: str, described: Any, salt: bytes, mean: np.ndarray | None) -> np.ndarray:
    if kind in _VECTORS:
        if mean is None or mean.shape != described.shape:
            return np.zeros(0, np.uint64)  # such as an ECG of other leads: it cannot be a near-duplicate
        signs = _projections(salt, len(described)) @ (described - mean) > 0
        groups = [np.packbits(g).tobytes() for g in signs.reshape(TABLES, BITS)]
    elif kind == "text":
        codes = np.array([int.from_bytes(_digest(s.encode(), salt), "big") for s in described], np.uint64)
        rng = np.random.default_rng(np.frombuffer(salt, np.uint32))
        mixed = rng.integers(1, 2**63, (TABLES * _MINIMA, 1), np.uint64) * 2 + 1  # odd factors permute the codes
        minima = (codes[None] * mixed).min(axis=1)
        groups = [g.tobytes() for g in minima.reshape(TABLES, _MINIMA)]
    else:
        groups = [described.encode()]
    return np.array(
        [int.from_bytes(_digest(i.to_bytes(2, "big") + g, salt), "big") for i, g in enumerate(groups)], np.uint64
    )


def _digest(data: bytes, salt: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8, key=salt).digest()


@lru_cache(maxsize=8)
def _projections(salt: bytes, width: int) -> np.ndarray:
    """float32[TABLES * BITS, width]"""
    rng = np.random.default_rng(np.frombuffer(salt, np.uint32))
    return rng.standard_normal((TABLES * BITS, width)).astype(np.float32)
