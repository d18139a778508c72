"""Masked autoencoding of any patch-based modality: hide most patches, restore them from the rest."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from medjax.config import build
from medjax.data.batch import Batch, Items
from medjax.errors import UserError
from medjax.losses import Loss, Term
from medjax.methods.base import Encoded, Params, State
from medjax.methods.towers import Towers, unflatten
from medjax.models.decoder import Decoder, DecoderConfig
from medjax.models.layers import masked_mean, row_keys
from medjax.models.partitioning import logical_specs, unbox


@dataclass(frozen=True)
class MaskedAutoencoderConfig:
    """towers: encoders that work on patches. mask_ratio: share of patches hidden. normalise_targets: restore patches
    of zero mean and unit spread. decoder: of every modality.
    """

    towers: dict[str, dict[str, Any]]
    mask_ratio: float = 0.75
    normalise_targets: bool = True
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    name: str = "masked_autoencoder"


@dataclass(frozen=True)
class MaskedAutoencoder:
    """See `medjax.methods.base.Method`. arXiv 2111.06377. Parameters: "towers", "lora" of those that are
    adapted, "decoders".

    Without a key the whole input is encoded, and `pooled` is the encoder's own pooled feature.
    """

    config: MaskedAutoencoderConfig
    towers: Towers

    @classmethod
    def create(cls, options: Mapping[str, Any], specs: Mapping[str, Mapping[str, Any]]) -> "MaskedAutoencoder":
        """From `config.method` and the preprocessing of each modality."""
        config = build(MaskedAutoencoderConfig, options, "config.method")
        if not 0.0 < config.mask_ratio < 1.0:
            raise UserError(f"config.method.mask_ratio must be in (0, 1), got {config.mask_ratio}")
        towers = Towers.create(config.towers, specs)
        for m, module in towers.modules.items():
            if not hasattr(module, "patchify"):
                raise UserError(
                    f"config.method.towers.{m}: a masked autoencoder needs an encoder of patches (vit, ecg_vit)"
                )
        return cls(config, towers)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those with a tower."""
        return tuple(self.towers.modules)

    def _decoder(self, patch_dim: int) -> Decoder:
        return Decoder(self.config.decoder, patch_dim)

    def _patches(self, modality: str, items: Items) -> jax.Array:
        """[B * N, L, P]."""
        value = items.value["value"] if isinstance(items.value, dict) else items.value
        value = value.reshape(-1, *value.shape[2:])
        return self.towers.modules[modality].patchify(value)

    def _init(self, key: jax.Array, batch: Batch) -> Params:
        (towers, _), decoders = self.towers.init(key, batch), {}
        for i, m in enumerate(self.modalities):
            patches = self._patches(m, batch.items[m])
            tokens = self.towers.apply({"towers": unbox(towers)}, {}, m, batch, None, False)[0].patches
            n, length, dim = patches.shape
            visible = jnp.zeros((n, 1), jnp.int32)
            rng = jax.random.fold_in(key, 1000 + i)
            rows = jnp.arange(n)
            decoders[m] = self._decoder(dim).init(rng, tokens[:, :1], visible, length, rows)["params"]
        return {"towers": towers, **self.towers.init_lora(key, batch, towers), "decoders": decoders}

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, State]:
        """Fresh parameters; there is no state."""
        return unbox(self._init(key, batch)), {}

    def centre(self, params: Params, state: State, batch: Batch, modalities: tuple[str, ...]) -> Params:
        """Nothing is centred."""
        return params

    def logical_axes(self, batch: Batch) -> Params:
        """See `Method`."""
        return logical_specs(jax.eval_shape(lambda batch: self._init(jax.random.key(0), batch), batch))

    def encode(self, params: Params, state: State, batch: Batch, key: jax.Array | None, train: bool) -> Encoded:
        """Tokens of the visible patches and which they are; with no key of all patches."""
        pooled, tokens, masks, positions = {}, {}, {}, {}
        for i, m in enumerate(self.modalities):
            if m not in batch.items:
                continue
            items = batch.items[m]
            if key is None:
                features, _ = self.towers.apply(params, {}, m, batch, None, train)
                visible = jnp.broadcast_to(jnp.arange(features.patches.shape[1]), features.patches.shape[:2])
            else:
                mask_key, drop_key = jax.random.split(jax.random.fold_in(key, i))
                visible = self._choose(mask_key, m, batch)
                features, _ = self.towers.apply(params, {}, m, batch, drop_key, train, visible=visible)
            pooled[m] = masked_mean(unflatten(features.pooled.astype(jnp.float32), items), items.mask)
            tokens[m], positions[m] = unflatten(features.patches, items), unflatten(visible, items)
            masks[m] = jnp.broadcast_to(items.mask[..., None], positions[m].shape)
        present = {m: batch.items[m].present for m in pooled}
        return Encoded(pooled=pooled, present=present, tokens=tokens, token_mask=masks, positions=positions)

    def _choose(self, key: jax.Array, modality: str, batch: Batch) -> jax.Array:
        """int32[B * N, K]: the visible patches of each item, drawn from its row, in ascending order."""
        mask = batch.items[modality].mask
        length = self._patches(modality, batch.items[modality]).shape[1]
        keep = max(1, round(length * (1.0 - self.config.mask_ratio)))
        n = mask.shape[1]
        rows = (batch.row[:, None] * n + jnp.arange(n)[None]).reshape(-1)
        order = jax.vmap(lambda k: jax.random.permutation(k, length))(row_keys(key, rows))
        return jnp.sort(order[:, :keep], axis=1).astype(jnp.int32)

    def objective(
        self, encoded: Encoded, params: Params, state: State, batch: Batch, key: jax.Array
    ) -> tuple[Loss, State]:
        """Mean squared error over hidden patches, a term for each modality, each item counting once."""
        terms = {m: self._restore(m, encoded, params, batch) for m in self.modalities}
        return Loss.of(self.config.name, terms), state

    def _restore(self, m: str, encoded: Encoded, params: Params, batch: Batch) -> Term:
        items, tokens, positions = batch.items[m], encoded.tokens[m], encoded.positions[m]
        target = self._patches(m, items).astype(jnp.float32)
        n, length, dim = target.shape
        if self.config.normalise_targets:
            mean = target.mean(axis=-1, keepdims=True)
            target = (target - mean) / jnp.sqrt(target.var(axis=-1, keepdims=True) + 1e-6)
        visible = positions.reshape(n, -1)
        tokens = tokens.reshape(n, *tokens.shape[2:])
        predicted = self._decoder(dim).apply({"params": params["decoders"][m]}, tokens, visible, length, jnp.arange(n))
        hidden = jnp.ones((n, length)).at[jnp.arange(n)[:, None], visible].set(0.0)
        error = jnp.sum(jnp.mean((predicted - target) ** 2, axis=-1) * hidden, axis=1)
        error = error / jnp.maximum(hidden.sum(axis=1), 1.0)
        there = items.mask.reshape(n)
        return Term(jnp.sum(jnp.where(there, error, 0.0)), there.sum().astype(jnp.float32))

    def after_update(self, params: Params, state: State) -> tuple[Params, State]:
        """Nothing."""
        return params, state

    def scorer(self, params: Params) -> None:
        """It knows of no pairs."""
        return None
