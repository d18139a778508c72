"""The encoders of a method: made from configuration, initialised, and applied to the items of a batch."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from medjax.config import build
from medjax.data.batch import Batch, Items
from medjax.errors import UserError, suggest
from medjax.models import Features, make_tower
from medjax.models.lora import LoraConfig, adapted, init_lora, merge_lora, noting_linear_layers


@dataclass(frozen=True)
class Towers:
    """One Linen module a modality; those with an entry in `lora` are adapted by it."""

    modules: Mapping[str, Any]
    lora: Mapping[str, LoraConfig] = field(default_factory=dict)

    @classmethod
    def create(cls, towers: Mapping[str, Mapping[str, Any]], specs: Mapping[str, Mapping[str, Any]]) -> "Towers":
        """From `config.method.towers` and the preprocessing of each modality.

        Raises:
          UserError: no tower, a tower for a modality that the data section does not read, or LoRA in a tower that
            scans over its blocks.
        """
        if not towers:
            raise UserError("config.method.towers is empty; name an encoder for each modality")
        for name in towers:
            if name not in specs:
                raise UserError(
                    f"config.method.towers.{name}: config.data.modalities has no {name!r}; {suggest(name, specs)}"
                )
        modules, lora = {}, {}
        for m in sorted(towers):
            options = {k: towers[m][k] for k in towers[m]}
            if adaption := options.pop("lora", None):
                lora[m] = build(LoraConfig, adaption, f"config.method.towers.{m}.lora")
            modules[m] = make_tower(m, options, specs[m])
            if m in lora and getattr(modules[m].config, "scan", False):
                raise UserError(
                    f"config.method.towers.{m}: LoRA cannot tell blocks apart that are scanned; set scan=False"
                )
        return cls(modules, lora)

    def init(self, key: jax.Array, batch: Batch) -> tuple[dict[str, Any], dict[str, Any]]:
        """`{modality: parameters}`, with logical names, and `{modality: batch statistics}` of those that keep any."""
        params, stats = {}, {}
        for i, (m, module) in enumerate(self.modules.items()):
            value, rows = flatten_items(batch.items[m], batch.row)
            variables = module.init(jax.random.fold_in(key, i), **value, rows=rows)
            params[m] = variables["params"]
            if "batch_stats" in variables:
                stats[m] = variables["batch_stats"]
        return params, stats

    def init_lora(self, key: jax.Array, batch: Batch, towers: Mapping[str, Any]) -> dict[str, Any]:
        """`{"lora": {modality: parameters}}`, with logical names; empty where no tower is adapted.

        towers: parameters as `init` gives them.
        """
        out = {}
        for i, (m, module) in enumerate(self.modules.items()):
            if m not in self.lora:
                continue
            value, rows = flatten_items(batch.items[m], batch.row)
            with noting_linear_layers() as layers:
                jax.eval_shape(lambda module=module, value=value, rows=rows: module.init(key, **value, rows=rows))
            rng = jax.random.fold_in(key, 6000 + i)
            out[m] = init_lora(rng, self.lora[m], layers, towers[m], f"config.method.towers.{m}")
        return {"lora": out} if out else {}

    def apply(
        self, params, stats, modality: str, batch: Batch, key: jax.Array | None, train: bool, **options
    ) -> tuple[Features, dict[str, Any]]:
        """Features of all items of a modality, `[B * N, ...]`; `unflatten` gives them their two axes back.

        And `{modality: batch statistics}` where training changed any: absent items have no part in them. params: of the
        method; without "lora" in them, as where it is merged, towers are plain.
        """
        value, rows = flatten_items(batch.items[modality], batch.row)
        rngs = {} if key is None or not train else {"dropout": key}
        variables = {"params": params["towers"][modality]}
        if modality in stats:
            variables["batch_stats"] = stats[modality]
            options["present"] = batch.items[modality].mask.reshape(-1)
        lora = params.get("lora", {}).get(modality)
        options |= {"rngs": rngs, "mutable": ["batch_stats"] if train else []}
        with adapted(lora, self.lora[modality], rows, train) if lora else contextlib.nullcontext():
            features, changed = self.modules[modality].apply(variables, **value, rows=rows, train=train, **options)
        after, before = (jax.tree.leaves(x.get("batch_stats", {})) for x in (changed, variables))
        if not train or all(new is old for new, old in zip(after, before, strict=True)):
            return features, {}  # frozen statistics come back as they went in
        return features, {modality: changed["batch_stats"]}

    def merged(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The method's parameters with "lora" merged into "towers": what is exported, or started from."""
        towers = dict(params["towers"])
        for m, lora in params.get("lora", {}).items():
            towers[m] = merge_lora(towers[m], lora, self.lora[m])
        return {k: v for k, v in params.items() if k != "lora"} | {"towers": towers}


def flatten_items(items: Items, row: jax.Array) -> tuple[dict[str, Any], jax.Array]:
    """Items as rows `[B * N, ...]` by the names of the tower's arguments, with a row number of their own that does not
    depend on how the batch is cut."""
    b, n = items.mask.shape
    value = jax.tree.map(lambda x: x.reshape(b * n, *x.shape[2:]), items.value)
    rows = (row[:, None] * n + jnp.arange(n)[None]).reshape(b * n)
    return value if isinstance(value, dict) else {"value": value}, rows


def unflatten(x: jax.Array, items: Items) -> jax.Array:
    """[B * N, ...] -> [B, N, ...]."""
    return x.reshape(*items.mask.shape, *x.shape[1:])
