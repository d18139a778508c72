"""What every encoder returns, whatever it encodes."""

from dataclasses import dataclass

import jax


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Features:
    """pooled: [b, D]. tokens: [b, L, D]. token_mask: bool[b, L], false for padding. Before any projection."""

    pooled: jax.Array
    tokens: jax.Array
    token_mask: jax.Array
