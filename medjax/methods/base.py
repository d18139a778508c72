"""The contract between a recipe's method and everything that trains, evaluates or exports it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax

from medjax.data.batch import Batch
from medjax.losses import Loss

Params = Mapping[str, Any]
State = Mapping[str, Any]
# (queries {modality: [n, E]}, candidates [k, E], target modality, present {modality: bool[n]}) -> float32[n, k]
Scorer = Callable[[Mapping[str, jax.Array], jax.Array, str, Mapping[str, jax.Array]], jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Encoded:
    """What a batch becomes. Every field is by modality; a method fills those it needs.

    pooled: float32[B, E]. present: bool[B]. items: float32[B, N, E], item_mask: bool[B, N]. tokens: [B, N, L, D],
    token_mask: bool[B, N, L]; positions: int32[B, N, L], which patch each token is, where only some were encoded.
    updates: what encoding changed of the state, such as batch statistics; not by row.
    """

    pooled: Mapping[str, jax.Array]
    present: Mapping[str, jax.Array]
    items: Mapping[str, jax.Array] = field(default_factory=dict)
    item_mask: Mapping[str, jax.Array] = field(default_factory=dict)
    tokens: Mapping[str, jax.Array] = field(default_factory=dict)
    token_mask: Mapping[str, jax.Array] = field(default_factory=dict)
    positions: Mapping[str, jax.Array] = field(default_factory=dict)
    updates: Mapping[str, Any] = field(default_factory=dict)


class Method(Protocol):
    """Pure functions of parameters and state; encoding and objective are apart, so that gradients can be accumulated
    exactly and one method serves training, embedding, evaluation and export.

    Learnt parts of an objective (logit scale, decoder, prototypes) are parameters under "objectives" or a name of
    their own; encoders are under "towers", so that one method can start from another's, what several of them share
    there under a name that is no modality's, and what LoRA adds to them is under "lora". What is updated otherwise
    (teachers, queues, centres) is state; the running statistics of batch norms are `{modality: tree}` under
    "batch_stats".
    """

    modalities: tuple[str, ...]

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, State]:
        """Fresh parameters and state; what a method centres at the start, it centres on `batch`."""

    def centre(self, params: Params, state: State, batch: Batch, modalities: tuple[str, ...]) -> Params:
        """Parameters with what is centred at the start centred again on `batch`, after these modalities' towers were
        replaced."""

    def logical_axes(self, batch: Batch) -> Params:
        """The tree of `init`'s parameters with a PartitionSpec of logical names in each leaf."""

    def encode(self, params: Params, state: State, batch: Batch, key: jax.Array | None, train: bool) -> Encoded:
        """Encodes the modalities that the batch has, of any rows of it. With `key` the method's own randomness applies
        (masks, views), without it the whole input is encoded; `train` switches dropout."""

    def objective(
        self, encoded: Encoded, params: Params, state: State, batch: Batch, key: jax.Array
    ) -> tuple[Loss, State]:
        """The loss of a whole global batch, and the new state."""

    def after_update(self, params: Params, state: State) -> tuple[Params, State]:
        """What follows the optimizer's step: parameters back within their limits, teachers moved along."""

    def scorer(self, params: Params) -> Scorer | None:
        """How well a candidate completes a set of other modalities; None where the method has no such notion."""
