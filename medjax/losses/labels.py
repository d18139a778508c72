"""Class labels as a relation between rows: which are of one class, and how alike two sets of findings are."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from medjax.errors import UserError
from medjax.losses.similarity import product


def describe_labels(targets: Any, b: int) -> dict[str, jax.Array]:
    """Per-row metadata from the `targets` of a batch.

    targets: int[b] classes: 0 stands for an example of no class, its own only match, and a negative number for one
    that is never asked (UniCL's convention). Or `[b, K]` findings of 0 and 1, or `{"labels": [b, K], "labels_mask":
    bool[b, K]}`: equal vectors are one class, "no finding" among them, and a row with an unknown finding is its own.
    Returns `{"class": int32[b]}` or `{"labels": float32[b, K], "known": bool[b]}`.
    """
    known = None
    if isinstance(targets, Mapping):
        targets, known = targets["labels"], jnp.asarray(targets["labels_mask"])
    targets = jnp.asarray(targets)
    if targets.ndim == 1 and jnp.issubdtype(targets.dtype, jnp.integer) and targets.shape[0] == b:
        return {"class": targets.astype(jnp.int32)}
    if targets.ndim != 2 or targets.shape[0] != b:
        raise UserError(f"targets must be int[{b}] classes or [{b}, K] findings, got {targets.dtype}{targets.shape}")
    known = jnp.ones(targets.shape, bool) if known is None else known
    return {"labels": jnp.where(known, targets, 0).astype(jnp.float32), "known": jnp.all(known, axis=1)}


def findings(targets: Any) -> jax.Array:
    """float32[b, K] from `[b, K]` findings or `{"labels", "labels_mask"}`; unknown ones are -1."""
    if isinstance(targets, Mapping):
        return jnp.where(targets["labels_mask"], targets["labels"], -1.0).astype(jnp.float32)
    return jnp.asarray(targets).astype(jnp.float32)


def same_label(queries: dict, keys: dict) -> jax.Array:
    """bool[q, k]: pairs of one class."""
    if "class" in queries:
        return (queries["class"][:, None] == keys["class"][None]) & (queries["class"] > 0)[:, None]
    x, y = queries["labels"], keys["labels"]
    # |x - y|^2 of zeros and ones counts the findings that differ, and is exact.
    differ = jnp.sum(x * x, axis=1)[:, None] + jnp.sum(y * y, axis=1)[None] - 2 * product(x, y)
    return (differ < 0.5) & queries["known"][:, None] & keys["known"][None]


def asked(rows: dict) -> jax.Array:
    """bool[n]: rows that may be asked for their answers."""
    return rows["class"] >= 0 if "class" in rows else jnp.ones(rows["known"].shape, bool)


def unit_findings(labels: jax.Array) -> jax.Array:
    """float32[b, K + 1]: findings scaled to length one, with "no finding" as a further one, so that none is zero."""
    none = jnp.all(labels == 0, axis=1, keepdims=True).astype(jnp.float32)
    full = jnp.concatenate([labels, none], axis=1)
    return full / jnp.sqrt(jnp.sum(full * full, axis=1, keepdims=True))
