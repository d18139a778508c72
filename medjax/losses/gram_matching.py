"""GRAM's data-anchor matching: hard negatives drawn by volume, and the two-class loss of a matching head."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from medjax.errors import UserError, suggest
from medjax.losses.base import Loss, Term
from medjax.losses.blocks import by_blocks
from medjax.losses.collectives import AxisName, all_gather, global_rows, psum
from medjax.losses.gram import span
from medjax.losses.relations import Relation
from medjax.losses.similarity import gram_volume


class MatchingPairs(NamedTuple):
    """What a matching head is to judge: 3b pairs of this device, the first b of them true.

    anchor, others: int32[3b], the global rows of the batch from which a pair takes its anchor and its other modalities.
    match: bool[3b]. valid: bool[3b]; where False the pair lacks a member, or no negative could be drawn.
    """

    anchor: jax.Array
    others: jax.Array
    match: jax.Array
    valid: jax.Array


def draw_matching_pairs(
    embeddings: Mapping[str, jax.Array],
    *,
    anchor: str,
    logit_scale: jax.Array | float,
    key: jax.Array,
    present: Mapping[str, jax.Array] | None = None,
    ids: Mapping[str, jax.Array] | None = None,
    same_patient: str = "ignore",
    same_text: str = "ignore",
    same_group: str = "ignore",
    floor: float = 1e-4,
    eps: float = 1e-6,
    block: int = 1024,
    axis_name: AxisName = None,
) -> MatchingPairs:
    """For each row the true pair, a hard negative for its anchor and one for its other modalities.

    A negative j of anchor i is drawn with probability proportional to `softmax_j(-s vol(a_i, M_j)) + floor`, j != i
    (arXiv 2412.11959 and ispamm/GRAM `model/gram.py`: the softmax still includes j = i); likewise an anchor for the
    others of row i. No gradient. Drawn in blocks of rows, so memory is O(block x batch); a row draws the
    same on any mesh.

    Args:
      embeddings: `{modality: [b, E]}`, this device's rows. anchor: one of them.
      logit_scale: the multiplier, as in `gram`.
      key: PRNG key, equal on all devices.
      present, ids: as for an objective.
      same_patient, same_group, same_text: "mask" and "positive" keep such pairs from being drawn as negatives.
      floor: added to each probability before they are normalised again. eps: as in `gram`.
      axis_name: mesh axis or axes of the caller's `shard_map` over which the batch is split.

    Raises:
      UserError: the anchor is no modality, or the only one.
    """
    if anchor not in embeddings or len(embeddings) < 2:
        hint = suggest(anchor, embeddings)
        raise UserError(f"matching needs the anchor {anchor!r} and at least one other modality; {hint}")
    embeddings = jax.lax.stop_gradient({m: jnp.asarray(embeddings[m]) for m in sorted(embeddings)})
    others = [m for m in embeddings if m != anchor]
    relation = Relation(same_patient, same_text, same_group)
    b = embeddings[anchor].shape[0]
    here = {m: jnp.ones(b, bool) if present is None else present[m] for m in embeddings}
    anchors = embeddings[anchor].astype(jnp.float32)
    anchors = {"anchor": anchors, "square": jnp.sum(anchors * anchors, axis=1)}
    tuples = span([embeddings[m] for m in others], [here[m] for m in others])
    any_other = jnp.any(jnp.stack([here[m] for m in others]), axis=0)
    anchor_rows, tuple_rows = (relation.describe(p, ids, axis_name) for p in (here[anchor], any_other))
    theta = {"scale": jax.lax.stop_gradient(jnp.asarray(logit_scale, jnp.float32)), "eps": jnp.float32(eps)}
    keys = jax.random.split(key)
    to_tuple, some_tuple = _draw(
        keys[0], lambda q, k: gram_volume(theta, q, k), relation, (anchors, anchor_rows), (tuples, tuple_rows),
        floor, block, axis_name,
    )  # fmt: skip
    to_anchor, some_anchor = _draw(
        keys[1], lambda q, k: gram_volume(theta, k, q).T, relation, (tuples, tuple_rows), (anchors, anchor_rows),
        floor, block, axis_name,
    )  # fmt: skip
    own = global_rows(b, axis_name)
    return MatchingPairs(
        anchor=jnp.concatenate([own, own, to_anchor]),
        others=jnp.concatenate([own, to_tuple, own]),
        match=jnp.arange(3 * b) < b,
        valid=jnp.concatenate([here[anchor] & any_other, some_tuple, some_anchor]),
    )


def matching_loss(
    logits: jax.Array, match: jax.Array, valid: jax.Array | None = None, *, axis_name: AxisName = None
) -> Loss:
    """Mean cross-entropy of a matching head over the valid pairs of the mesh.

    logits: `[n, 2]`, class 1 a match. match, valid: bool[n]. GRAM adds 0.1 times this to its contrastive loss:
    `Loss.sum({"gram": (1.0, gram), "matching": (0.1, matching)})`.
    """
    if logits.ndim != 2 or logits.shape[1] != 2:
        raise UserError(f"matching logits must be [n, 2], not a match and a match, got {list(logits.shape)}")
    valid = jnp.ones(match.shape, bool) if valid is None else valid
    margin = logits[:, 1].astype(jnp.float32) - logits[:, 0].astype(jnp.float32)
    loss = jnp.where(valid, jax.nn.softplus(jnp.where(match, -margin, margin)), 0.0)
    total, count = psum((jnp.sum(loss), valid.sum().astype(jnp.float32)), axis_name)
    return Loss.of("matching", {"pairs": Term(total, count)})


def _draw(key, tile, relation: Relation, queries, keys, floor: float, block: int, axis_name: AxisName):
    """int32[b] global rows, and bool[b] whether there was any to draw; a row draws itself where there was not."""
    keys, key_rows = all_gather(keys, axis_name)

    def some_rows(block):
        query, rows = block
        s_qk = tile(query, keys)
        allowed, answers = relation(rows, key_rows)
        share = jax.nn.softmax(jnp.where(allowed, s_qk, -1e30), axis=1)
        negative = allowed & (answers == 0)
        noise = jax.vmap(lambda row: jax.random.gumbel(jax.random.fold_in(key, row), s_qk.shape[1:]))(rows["row"])
        drawn = jnp.argmax(jnp.where(negative, jnp.log(share + floor) + noise, -jnp.inf), axis=1)
        return jnp.where(negative.any(axis=1), drawn, rows["row"]).astype(jnp.int32), negative.any(axis=1)

    return by_blocks(some_rows, queries, block)
