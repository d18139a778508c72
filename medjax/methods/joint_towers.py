"""One encoder for several modalities: patches embedded by modality, and one stack of blocks over all their tokens."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax.data.batch import Batch
from medjax.errors import UserError
from medjax.methods.towers import Towers, flatten_items
from medjax.models import Features
from medjax.models.layers import row_keys
from medjax.models.trunk import SharedTrunk, TrunkConfig

SHARED = "trunk"
_OWN = ("patch_embed", "positions", "depth_positions", "lead_positions")


@dataclass(frozen=True)
class JointTowers(Towers):
    """Parameters: of each modality its patch embedding and positions, under `SHARED` the rest. Of one modality alone
    this is a plain tower, which `merged` makes of it.
    """

    @classmethod
    def create(cls, towers: Mapping[str, Mapping[str, Any]], specs: Mapping[str, Mapping[str, Any]]) -> "JointTowers":
        """As `Towers.create`; further errors: one tower alone, LoRA, or towers whose blocks differ."""
        made = super().create(towers, specs)
        if len(made.modules) < 2 or SHARED in made.modules:
            raise UserError("config.method.joint needs towers of two modalities or more, none of them named 'trunk'")
        if made.lora:
            raise UserError(f"config.method.joint takes no LoRA; leave it out of the towers {', '.join(made.lora)}")
        first, *others = made.modules
        for m in others:
            differ = sorted(k for k, v in _trunk(made.modules[m]).items() if v != _trunk(made.modules[first])[k])
            if differ:
                raise UserError(
                    f"config.method.joint: the towers share their blocks, and {', '.join(differ)} of {m} differ from "
                    f"those of {first}; set them alike"
                )
        return made

    @property
    def trunk(self) -> SharedTrunk:
        """The module of what is shared."""
        return SharedTrunk(TrunkConfig(**_trunk(next(iter(self.modules.values())))))

    def init(self, key: jax.Array, batch: Batch) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `Towers.init`; what is shared starts as that of the first modality."""
        whole, stats = super().init(key, batch)
        own = {m: {k: x for k, x in tree.items() if k in _OWN} for m, tree in whole.items()}
        first = next(iter(whole.values()))
        return own | {SHARED: {k: x for k, x in first.items() if k not in _OWN}}, stats

    def merged(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of plain towers, each with a copy of what is shared: what is exported, or started from."""
        towers = params["towers"]
        return {**params, "towers": {m: {**towers[m], **towers[SHARED]} for m in self.modules}}

    def apply(
        self, params, stats, modality: str, batch: Batch, key: jax.Array | None, train: bool, **options
    ) -> tuple[Features, dict[str, Any]]:
        """Features of one modality alone; see `Towers.apply`."""
        return super().apply(self.merged(params), stats, modality, batch, key, train, **options)

    def together(self, params, batch: Batch, key: jax.Array | None, train: bool, visible=None) -> Features:
        """Features of the tokens of all modalities of a batch, those that are there attending to each other.

        Tokens [B, L, D] are those of the modalities in the order of their names, of any that the batch has. visible:
        int32[B, K], those to encode; default all.
        """
        there = [m for m in self.modules if m in batch.items]
        tokens, keep = [], []
        for m in there:
            items = batch.items[m]
            if items.mask.shape[1] != 1:
                raise UserError(
                    f"config.method.joint takes one item of each modality, and {m} has {items.mask.shape[1]}"
                )
            value, rows = flatten_items(items, batch.row)
            own = {"params": params["towers"][m]}
            x, real = self.modules[m].apply(own, **value, rows=rows, embedded=True)
            tokens.append(x)
            keep.append(items.mask & (jnp.ones(x.shape[:2], bool) if real is None else real))
        rngs = {} if key is None or not train else {"dropout": key}
        variables = {"params": params["towers"][SHARED]}
        x, keep = jnp.concatenate(tokens, axis=1), jnp.concatenate(keep, axis=1)
        return self.trunk.apply(variables, x, batch.row, train, keep, visible, rngs=rngs)


def _trunk(module: Any) -> dict[str, Any]:
    """The options of a tower that are not of its patches."""
    known = {f.name for f in fields(TrunkConfig)}
    return {k: v for k, v in asdict(module.config).items() if k in known}


def split_visible(
    key: jax.Array, rows: jax.Array, lengths: tuple[int, ...], present_bm: jax.Array, keep: int, alpha: float = 1.0
) -> jax.Array:
    """int32[B, keep]: the visible of all tokens, ascending; how they are shared out among the modalities is drawn from
    a symmetric Dirichlet distribution (MultiMAE, arXiv 2204.01678, section 3.2; BM-MAE).

    Each row draws for itself, by its global row. lengths: tokens of each modality. present: bool[B, M]; only modalities
    that are there get a share. What one cannot take, having fewer tokens than its share, goes to those with the next
    larger shares (BM-MAE draws again); where all of them together have too few, tokens of absent modalities fill up.
    """
    modality = np.repeat(np.arange(len(lengths)), lengths)
    modality, first = jnp.asarray(modality), jnp.asarray(np.cumsum([0, *lengths[:-1]]))

    def one(key: jax.Array, present_m: jax.Array) -> jax.Array:
        share_key, token_key = jax.random.split(key)
        drawn = jnp.where(present_m, jax.random.gamma(share_key, alpha, (len(lengths),)), 0.0)
        share = drawn / jnp.maximum(drawn.sum(), jnp.finfo(jnp.float32).tiny)
        room = jnp.where(present_m, jnp.asarray(lengths), 0)
        count = jnp.diff(jnp.round(jnp.cumsum(share) * keep), prepend=0.0).astype(jnp.int32)  # they sum to `keep`
        count = jnp.minimum(count, room)
        for m in jnp.argsort(-share):
            count = count.at[m].add(jnp.minimum(keep - count.sum(), room[m] - count[m]))
        chance = jax.random.uniform(token_key, (sum(lengths),))
        rank = jnp.argsort(jnp.argsort(modality + chance)) - first[modality]  # among the tokens of its modality
        chosen = rank < count[modality]
        order = jnp.argsort(jnp.where(chosen, 0.0, jnp.where(present_m[modality], 2.0, 1.0)) + chance)
        return jnp.sort(order[:keep]).astype(jnp.int32)

    return jax.vmap(one)(row_keys(key, rows), present_bm)
