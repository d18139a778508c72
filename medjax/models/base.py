"""What every encoder returns, whatever it encodes."""

from dataclasses import dataclass, field

import jax


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Features:
    """Before any projection to the embedding space.

    pooled: [b, D]. tokens: [b, L, D], all that leave the encoder. token_mask: bool[b, L], false for padding. prefix:
    how many leading tokens stand for no place of the input (class token, registers).
    """

    pooled: jax.Array
    tokens: jax.Array
    token_mask: jax.Array
    prefix: int = field(default=0, metadata={"static": True})

    @property
    def patches(self) -> jax.Array:
        """[b, L - prefix, D]: the tokens of patches, words, or whatever the input consists of."""
        return self.tokens[:, self.prefix :]

    @property
    def patch_mask(self) -> jax.Array:
        """bool[b, L - prefix]."""
        return self.token_mask[:, self.prefix :]
