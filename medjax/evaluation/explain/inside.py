"""One modality's encoder as every explanation sees it. Shapes: n inputs, L tokens, D width, H heads, E embedding."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from medjax.data.batch import Batch
from medjax.models.base import Features
from medjax.models.inspection import changing

Encode = Callable[[Any, Batch], Any]
Change = Callable[[str, Any], Any]


@dataclass(frozen=True)
class Inside:
    """encode: (params, Batch) -> an `Encoded` (see `medjax.methods.base`), without randomness and from towers that are
    `plain` (`medjax.models.inspection`). modality: the one looked into. config: of its tower.

    What is explained is always `pooled . target`, the inner product of an input's embedding with target float32[n, E]:
    a prompt's embedding, that of another modality, or the difference of two prompts.
    """

    encode: Encode
    modality: str
    config: Any

    @property
    def blocks(self) -> int:
        """How many transformer blocks there are; 0 for an encoder without attention."""
        return getattr(self.config, "depth", 0)

    @property
    def stages(self) -> int:
        """How many stages a residual network has; 0 for others."""
        return len(getattr(self.config, "depths", ()))


class Seen(NamedTuple):
    """pooled: float32[n, E]. features: what left the tower. outputs: `{path: output}` of its parts. encoded: all."""

    pooled: jax.Array
    features: Features
    outputs: Mapping[str, Any]
    encoded: Any


def look(inside: Inside, params: Any, batch: Batch, change: Change = lambda _, x: x) -> Seen:
    """Embeds a batch of one item an example, with the outputs of modules changed by `change` on the way."""
    outputs: dict[str, Any] = {}

    def note(path: str, output: Any) -> Any:
        changed = change(path, output)
        if path or isinstance(output, Features):  # the head, too, is a module without a name
            outputs.setdefault(path, changed)
        return changed

    with changing(note):
        encoded = inside.encode(params, batch.select([inside.modality]))
    return Seen(encoded.pooled[inside.modality], outputs[""], outputs, encoded)


def outputs_and_gradients(
    inside: Inside, params: Any, batch: Batch, target: jax.Array, wanted: Callable[[str], bool]
) -> tuple[Seen, dict[str, jax.Array]]:
    """What is seen, and of the outputs whose path is wanted the gradient of the score, one score an input."""

    def outputs() -> dict[str, jax.Array]:
        return {k: x for k, x in look(inside, params, batch).outputs.items() if wanted(k)}

    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(outputs))

    def score(bend):
        seen = look(inside, params, batch, lambda path, x: x + bend[path] if path in bend else x)
        return jnp.sum(seen.pooled * target), seen

    gradients, seen = jax.grad(score, has_aux=True)(nothing)
    return seen, gradients


def reading_rows(inside: Inside, seen: Seen) -> jax.Array:
    """float32[n, L]: the share of each token, prefix included, in what the tower pools.

    The class token, or the end of a text, all of it; a mean, equal shares of the real ones, and so for a maximum, whose
    shares differ by channel; attention of a learnt query, the mean over heads of its map.
    """
    features, pool = seen.features, inside.config.pool
    n, length = features.tokens.shape[:2]
    place, mask = jnp.arange(length)[None], features.token_mask
    if pool == "attention":
        return seen.outputs["attention_pool/attention/maps"][:, :, 0].mean(axis=1)
    if pool in ("mean", "max"):
        share = (mask & (place >= features.prefix)).astype(jnp.float32)
        return share / jnp.maximum(share.sum(axis=1, keepdims=True), 1)
    one = {"cls": jnp.zeros((n, 1), jnp.int32), "last": jnp.full((n, 1), length - 1, jnp.int32)}
    one["eos"] = jnp.maximum(mask.sum(axis=1, keepdims=True) - 1, 0)
    return (place == one[pool]).astype(jnp.float32)


def of_patches(inside: Inside, seen: Seen, relevance: jax.Array) -> jax.Array:
    """float32[n, L - prefix] of relevance [n, L]; NaN for tokens that stand for nothing."""
    features = seen.features
    return jnp.where(features.patch_mask, relevance[:, features.prefix :], jnp.nan)


def map_paths(inside: Inside) -> list[str]:
    """The paths of the attention maps of the blocks, in order."""
    return [f"blocks/block_{i}/attention/maps" for i in range(inside.blocks)]
