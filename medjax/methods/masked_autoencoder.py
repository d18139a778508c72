"""Masked autoencoding of any patch-based modality: hide most patches, restore them from the rest."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax.config import build
from medjax.data.batch import Batch, Items
from medjax.errors import UserError
from medjax.losses import Loss, Term
from medjax.losses.reconstruction import hidden_patch_error, normalised_patches
from medjax.methods.base import Encoded, Params, State
from medjax.methods.joint_towers import JointTowers, split_visible
from medjax.methods.towers import Towers, unflatten
from medjax.models.decoder import Decoder, DecoderConfig
from medjax.models.layers import masked_mean, row_keys
from medjax.models.partitioning import logical_specs, unbox

JOINT = "joint"  # what a joint encoder gives, and its decoder


@dataclass(frozen=True)
class MaskedAutoencoderConfig:
    """towers: encoders that work on patches. mask_ratio: share of patches hidden. normalise_targets: restore patches
    of zero mean and unit spread. decoder: of every modality.

    joint: one encoder and one decoder for the patches of all modalities together, a share of the visible ones drawn for
    each modality anew (BM-MAE; MultiMAE, arXiv 2204.01678); see `JointTowers`. How many are visible in all is constant.
    """

    towers: dict[str, dict[str, Any]]
    mask_ratio: float = 0.75
    normalise_targets: bool = True
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    joint: bool = False
    name: str = "masked_autoencoder"


@dataclass(frozen=True)
class MaskedAutoencoder:
    """See `medjax.methods.base.Method`. arXiv 2111.06377. Parameters: "towers", "lora" of those that are
    adapted, "decoders".

    Without a key the whole input is encoded, and `pooled` is the encoder's own pooled feature, also of a joint encoder
    that of each modality alone: no embedding of one modality has seen another.
    """

    config: MaskedAutoencoderConfig
    towers: Towers

    @classmethod
    def create(cls, options: Mapping[str, Any], specs: Mapping[str, Mapping[str, Any]]) -> "MaskedAutoencoder":
        """From `config.method` and the preprocessing of each modality."""
        config = build(MaskedAutoencoderConfig, options, "config.method")
        if not 0.0 < config.mask_ratio < 1.0:
            raise UserError(f"config.method.mask_ratio must be in (0, 1), got {config.mask_ratio}")
        towers = (JointTowers if config.joint else Towers).create(config.towers, specs)
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

    def _decoder(self, *patches: jax.Array) -> Decoder:
        """patches: [n, L, P] of each part."""
        return Decoder(self.config.decoder, tuple(x.shape[1:] for x in patches))

    def _patches(self, modality: str, items: Items) -> jax.Array:
        """[B * N, L, P]."""
        value = items.value["value"] if isinstance(items.value, dict) else items.value
        value = value.reshape(-1, *value.shape[2:])
        return self.towers.modules[modality].patchify(value)

    def _init(self, key: jax.Array, batch: Batch) -> Params:
        (towers, _), decoders = self.towers.init(key, batch), {}
        patches = {m: self._patches(m, batch.items[m]) for m in self.modalities}
        parts = {JOINT: list(patches.values())} if self.config.joint else {m: [x] for m, x in patches.items()}
        for i, (name, part) in enumerate(parts.items()):
            m = self.modalities[0] if self.config.joint else name
            tokens = self.towers.apply({"towers": unbox(towers)}, {}, m, batch, None, False)[0].patches[:, :1]
            n = len(tokens)
            rng = jax.random.fold_in(key, 1000 + i)
            decoder = self._decoder(*part)
            decoders[name] = decoder.init(rng, tokens, jnp.zeros((n, 1), jnp.int32), jnp.arange(n))["params"]
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
        """Tokens of the visible patches and which they are, of a joint encoder under `JOINT`; with no key of all."""
        if self.config.joint and key is not None:
            return self._encode_jointly(params, batch, key, train)
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

    def _encode_jointly(self, params: Params, batch: Batch, key: jax.Array, train: bool) -> Encoded:
        mask_key, drop_key = jax.random.split(key)
        lengths = tuple(self._patches(m, batch.items[m]).shape[1] for m in self.modalities)
        present = jnp.stack([batch.items[m].present for m in self.modalities], axis=1)
        keep = max(1, round(sum(lengths) * (1.0 - self.config.mask_ratio)))
        visible = split_visible(mask_key, batch.row, lengths, present, keep)
        features = self.towers.together(params, batch, drop_key, train, visible)
        there = {m: batch.items[m].present for m in self.modalities}
        tokens, mask = features.patches[:, None], features.patch_mask[:, None]
        return Encoded({}, there, tokens={JOINT: tokens}, token_mask={JOINT: mask}, positions={JOINT: visible[:, None]})

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
        if self.config.joint:
            terms = self._restore(JOINT, self.modalities, encoded, params, batch)
        else:
            terms = {m: self._restore(m, (m,), encoded, params, batch)[m] for m in self.modalities}
        return Loss.of(self.config.name, terms), state

    def _restore(
        self, decoder: str, modalities: tuple[str, ...], encoded: Encoded, params: Params, batch: Batch
    ) -> dict[str, Term]:
        """The error of each of these modalities, which one decoder restores together."""
        patches = [self._patches(m, batch.items[m]) for m in modalities]
        there = [batch.items[m].mask.reshape(-1) for m in modalities]
        n, lengths = len(patches[0]), [x.shape[1] for x in patches]
        tokens, visible = encoded.tokens[decoder], encoded.positions[decoder].reshape(n, -1)
        keep = jnp.repeat(jnp.stack(there, 1), np.array(lengths), axis=1) if len(modalities) > 1 else None
        made = self._decoder(*patches).apply(
            {"params": params["decoders"][decoder]}, tokens.reshape(n, *tokens.shape[2:]), visible, jnp.arange(n), keep
        )
        hidden = jnp.ones((n, sum(lengths)), bool).at[jnp.arange(n)[:, None], visible].set(False)
        hidden = jnp.split(hidden, np.cumsum(lengths)[:-1], axis=1)
        terms = {}
        for m, predicted, target, away, row in zip(modalities, made, patches, hidden, there, strict=True):
            target = normalised_patches(target) if self.config.normalise_targets else target
            error, counts = hidden_patch_error(predicted, target, away), row & away.any(axis=1)
            terms[m] = Term(jnp.sum(jnp.where(counts, error, 0.0)), counts.sum().astype(jnp.float32))
        return terms

    def after_update(self, params: Params, state: State) -> tuple[Params, State]:
        """Nothing."""
        return params, state

    def scorer(self, params: Params) -> None:
        """It knows of no pairs."""
        return None
