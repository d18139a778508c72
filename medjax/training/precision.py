"""How towers compute: in which precision, what they keep for the backward pass, block by block or in a loop."""

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

import jax
import jax.numpy as jnp

from medjax.models import TOWERS
from medjax.training.selection import path_name

# Options of towers that say how they compute, and not what.
COMPUTED = ("dtype", "remat", "remat_save", "scan", "attention")


@dataclass(frozen=True)
class Precision:
    """compute: dtype of towers, and of the decoders of a masked autoencoder, that say no `dtype` of their own. Heads,
    norms, the softmax of attention and losses are float32 whatever it is. params: in which the matrices and tables of
    towers are kept from step to step; all else, gradients of it and moments are float32. matmul: how float32 products
    are multiplied outside losses: "default" is bfloat16 on TPUs and TF32 on some GPUs, "highest" is float32.
    """

    compute: Literal["float32", "bfloat16"] = "float32"
    params: Literal["float32", "bfloat16"] = "float32"
    matmul: Literal["default", "high", "highest"] = "default"

    def products(self) -> AbstractContextManager:
        """Within it programs are traced with this precision of products."""
        return contextlib.nullcontext() if self.matmul == "default" else jax.default_matmul_precision(self.matmul)

    def kept(self, params: Any) -> Any:
        """Parameters in the dtypes that they are kept in."""

        def one(path, x):
            matrix = path_name(path).startswith("towers/") and x.ndim >= 2
            return x.astype(self.params) if matrix and x.dtype == jnp.float32 else x

        return jax.tree_util.tree_map_with_path(one, params)


@dataclass(frozen=True)
class BlockOptions:
    """How blocks run in towers that do not say so themselves (`medjax.models.blocks.BlocksConfig`). Residual networks
    follow remat="full" only; a tower with LoRA does not scan.
    """

    remat: Literal["none", "dots", "full"] = "none"
    remat_save: tuple[str, ...] = ()
    scan: bool = False
    attention: Literal["xla", "cudnn"] = "xla"


def with_computation(method: Mapping[str, Any], precision: Precision, blocks: BlockOptions) -> dict[str, Any]:
    """`config.method` with what its towers leave open about how they compute; those that are still to be read from a
    folder are left as they are."""
    towers = {m: _completed(tower, precision, blocks) for m, tower in method.get("towers", {}).items()}
    out = {**method, **({"towers": towers} if towers else {})}
    if method.get("name") == "masked_autoencoder":
        out["decoder"] = {"dtype": precision.compute, **method.get("decoder", {})}
    return out


def _completed(tower: Mapping[str, Any], precision: Precision, blocks: BlockOptions) -> dict[str, Any]:
    if tower.get("name") not in TOWERS:
        return dict(tower)
    hints = get_type_hints(TOWERS[tower["name"]][0])
    options = {"dtype": precision.compute} | {f.name: getattr(blocks, f.name) for f in fields(blocks)}
    if tower.get("lora"):
        options["scan"] = False
    if blocks.remat not in get_args(hints.get("remat")):
        options["remat"] = "none"
    if "remat" in tower:
        options["remat_save"] = ()  # goes with the other
    return {k: v for k, v in options.items() if k in hints} | dict(tower)
