"""What objectives that look inside a sample take: its tokens (patches, words, sentences) beside the pooled vector."""

from typing import NamedTuple

import jax


class Tokens(NamedTuple):
    """The parts of each sample of one modality, padded to the same number.

    tokens: `[b, n, E]`, already normalised where the objective wants that. mask: bool[b, n], which are real.
    pooled: `[b, E]`, the whole sample, for objectives that want both. weight: float32[b, n], how much each token counts
    (MGCA: the attention of the class token). group: uint32[b, n, 2], an id of each token, zero unknown (ConceptCLIP:
    the concept).
    """

    tokens: jax.Array
    mask: jax.Array
    pooled: jax.Array | None = None
    weight: jax.Array | None = None
    group: jax.Array | None = None
