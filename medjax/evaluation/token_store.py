"""Features of patches, slices, beats and words on disk, each with the place in the original input that it stands for.

Beside the tables of `medjax.evaluation.store` lie `tokens-{split}-{part}.npz` with, of every modality m and its n
items, `tokens/{m}` float16 or float32[n, L, D] (what leaves the encoder, before any projection), `mask/{m}` bool[n, L]
(false for padding), `coordinates/{m}` float32[n, L, K, 2] (where a token's place begins and ends along each axis of the
original, before resizing, padding and cropping), `extent/{m}` float32[n, K] (of the whole original), `row/{m}` and
`item/{m}` int64[n] (the row of the tables, and which of its items). The index names axes and units:

image   row, column in pixels; volume  depth, height, width in mm on the canonical axes; ecg  lead (number from 0), time
in s; text  characters of the report; labs  the tests' numbers.

A place beyond [0, extent] is padding. NaN: the token stands for no place, such as [CLS], or its text was changed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from medjax.data.batch import Batch
from medjax.data.records import decode_text, sha256
from medjax.data.transforms import Transform
from medjax.errors import UserError, check_choice
from medjax.evaluation import store
from medjax.evaluation.explain.geometry import placements, token_axes

AXES = {
    "image": (("row", "column"), ("pixel", "pixel")),
    "volume": (("depth", "height", "width"), ("mm", "mm", "mm")),
    "ecg": (("lead", "time"), ("lead", "s")),
    "text": (("character",), ("character",)),
    "labs": (("test",), ("test",)),
}
_BETWEEN = "\x1e"  # as TextTransform joins sections
# (batch) -> {modality: (tokens [B, N, L, D], mask bool[B, N, L])}
Tokens = Callable[[Batch], Mapping[str, tuple[jax.Array, jax.Array]]]


def read(directory: str | Path, split: str) -> Iterator[dict[str, np.ndarray]]:
    """Yields the columns of each file of a split; they may be too large to be held together.

    Raises:
      UserError: the folder has no tokens or no such split, or a file is missing or differs from its checksum.
    """
    index = store.read_index(directory)
    if not index.tokens:
        raise UserError(f"{directory} holds no tokens; embed again with --features=tokens")
    check_choice("split", split, index.tokens["splits"])
    for entry in index.tokens["splits"][split]:
        path = Path(directory) / entry["file"]
        if not path.is_file() or sha256(path) != entry["sha256"]:
            raise UserError(f"{path} is missing or differs from its checksum; embed again")
        yield store.read_part(path, "npz")


def columns(
    tokens: Tokens,
    batches: Iterable[Batch],
    raw_items: Callable[[list[int]], Iterable[Mapping[str, list[Any]]]],
    towers: Mapping[str, tuple[Transform, Any, float | None]],
    first: int,
    dtype: str,
) -> dict[str, np.ndarray]:
    """The columns of one file.

    batches: padded, the first row of which is row `first` of the split. raw_items: (rows) -> `{modality: raw items}` of
    each. towers: `{modality: (transform, tower's module, samples per second)}`. dtype: of the tokens.

    Raises:
      UserError: a token's place is not known, or a feature does not fit into float16.
    """
    found: dict[str, list[Any]] = {}
    for batch in batches:
        features = jax.device_get(tokens(batch))
        rows = np.flatnonzero(batch.valid)
        for i, raw in zip(rows, raw_items((first + rows).tolist()), strict=True):
            for m, (x, mask) in features.items():
                transform, module, rate = towers[m]
                given = _split(transform, raw[m])
                for j in np.flatnonzero(batch.items[m].mask[i]):
                    value = jax.tree.map(lambda a, i=i, j=j: np.asarray(a[i, j]), batch.items[m].value)
                    at, extent = places(transform, module, rate, value, given[j], x.shape[2])
                    _append(found, m, (x[i, j], mask[i, j], at, extent, first + i, j), dtype)
        first += batch.size
    return {k: np.stack(v) for k, v in found.items()}


def _append(found: dict[str, list[Any]], modality: str, values: tuple, dtype: str) -> None:
    names = ("tokens", "mask", "coordinates", "extent", "row", "item")
    kinds = (dtype, bool, np.float32, np.float32, np.int64, np.int64)
    for name, value, kind in zip(names, values, kinds, strict=True):
        with np.errstate(over="ignore"):
            kept = np.asarray(value).astype(kind)
        if name == "tokens" and not np.isfinite(kept).all():
            raise UserError(f"features of {modality} do not fit into {dtype}; pass --token_dtype=float32")
        found.setdefault(f"{name}/{modality}", []).append(kept)


def _split(transform: Transform, raw: list[Any]) -> list[Any]:
    """What each item was made from; of a text also the whole report, in which its places are counted."""
    if transform.kind != "text":
        return raw
    return [(decode_text(part), decode_text(report)) for report in raw for part in transform.split(report)]


def places(
    transform: Transform, module: Any, rate: float | None, value: Any, raw: Any, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """(float32[L, K, 2], float32[K]): begin and end of each token along each axis of the original, and its extent.

    module: the tower. rate: samples per second of an ECG. value: one input of the tower. raw: the item as the transform
    takes it; of a text (item, report). length: L.

    Raises:
      UserError: the tower's tokens are not those of a known grid.
    """
    if transform.kind == "text":
        return _characters(transform, *raw, length), np.array([len(raw[1])], np.float32)
    axes, along = token_axes(module, value), placements(transform, raw)
    scale = {"volume": getattr(raw, "spacing", ()), "ecg": (1.0, 1.0 / (rate or 1.0))}.get(transform.kind, ())
    scale = scale or (1.0,) * len(along)
    extent = np.array([p.n * s for p, s in zip(along, scale, strict=True)], np.float32)
    if length == 1:
        return np.stack([np.zeros_like(extent), extent], axis=1)[None], extent
    if np.prod([a.count for a in axes]) != length:
        raise UserError(f"a tower of {transform.kind} gives {length} tokens, of which no grid is known")
    spans = []
    for axis, p, s in zip(axes, along, scale, strict=True):
        middle = axis.middle + axis.pitch * np.arange(axis.count)
        seen = np.stack([middle - axis.pitch / 2, middle + axis.pitch / 2], axis=1)
        spans.append((seen + p.start) * (p.n / p.m * s))
    grid = np.stack(np.meshgrid(*[np.arange(a.count) for a in axes], indexing="ij"), axis=-1).reshape(length, -1)
    return np.stack([x[grid[:, k]] for k, x in enumerate(spans)], axis=1).astype(np.float32), extent


def _characters(transform: Transform, item: str, report: str, length: int) -> np.ndarray:
    """float32[L, 1, 2], in the report; NaN for tokens of no characters and for parts that do not stand in it."""
    begin, moved, after = 0, np.full(len(item) + 1, np.nan), 0
    for part in item.split(_BETWEEN):
        at = report.find(part, after)
        at = report.find(part) if at < 0 else at  # sections may come in another order than in the report
        if at >= 0:
            moved[begin : begin + len(part) + 1] = at + np.arange(len(part) + 1)
            after = at + len(part)
        begin += len(part) + 1
    out = np.full((length, 1, 2), np.nan, np.float32)
    for k, (a, b) in enumerate(transform.tokenizer.encode(item.replace(_BETWEEN, " ")).offsets[:length]):
        if b > a:
            out[k, 0] = moved[a], moved[b - 1] + 1
    return out


def describe(splits: Mapping[str, list[dict]], kinds: Mapping[str, str], dtype: str) -> dict[str, Any]:
    """What the index says of the files. kinds: `{modality: kind}`."""
    axes = {m: [{"name": n, "unit": u} for n, u in zip(*AXES[k], strict=True)] for m, k in kinds.items()}
    return {"splits": {k: list(v) for k, v in splits.items()}, "axes": axes, "dtype": dtype, "layer": "tower output"}
