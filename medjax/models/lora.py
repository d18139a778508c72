"""Low-rank adaptation of linear layers (LoRA, arXiv 2106.09685): `x W` becomes `x W + alpha / rank * x a b`.

The base keeps its own tree. That of LoRA follows it: where the base has `blocks/block_0/attention/query/kernel`, it has
`a` [in, rank] and `b` [rank, out] under `blocks/block_0/attention/query`. Since b is zero at the start, the adapted
tower is the base then.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from medjax.errors import UserError
from medjax.models.layers import drop
from medjax.models.partitioning import logical_specs, named, unbox

# Uniform in +-1/sqrt(in), as in peft; the paper has a normal distribution.
_a_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


@dataclass(frozen=True)
class LoraConfig:
    """targets: regular expression that matches the paths of the adapted linear layers in full. rank, alpha: the
    low-rank product is scaled by alpha / rank. dropout: of the input of the low-rank path, in training.

    It says nothing about the base, which trains on unless `config.optimizer.freeze` has it: ("towers/text/.*",) for all
    of it, ("towers/text/(?!.*bias$).*",) for all but the biases, which is bias="all" of peft.
    """

    targets: str = r"blocks/block_\d+/attention/(query|value)"
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0

    def __post_init__(self):
        try:
            re.compile(self.targets)
        except re.error as error:
            raise UserError(f"lora.targets={self.targets!r} is not a regular expression ({error})") from None
        if self.rank < 1 or self.alpha <= 0 or not 0.0 <= self.dropout < 1.0:
            raise UserError(
                f"lora needs rank >= 1, alpha > 0 and dropout in [0, 1), got rank={self.rank}, alpha={self.alpha}, "
                f"dropout={self.dropout}"
            )

    @property
    def scale(self) -> float:
        """What the low-rank product is multiplied by."""
        return self.alpha / self.rank


@contextlib.contextmanager
def noting_linear_layers() -> Iterator[set[str]]:
    """Within it the paths of the linear layers that are called are added to the set that it gives."""
    paths: set[str] = set()

    def note(call, args, kwargs, context):
        if (path := _linear_path(context)) is not None:
            paths.add(path)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        yield paths


def init_lora(key: jax.Array, config: LoraConfig, layers: Iterable[str], params: Mapping[str, Any], where: str) -> Any:
    """Fresh `a` and `b` for every target among the linear layers of a tower, with logical axis names.

    layers: paths of the tower's linear layers. params: of the tower, with names. where: the tower's place in the
    configuration, for errors.

    Raises:
      UserError: no layer matches.
    """
    targets = sorted(path for path in layers if re.fullmatch(config.targets, path))
    if not targets:
        there = sorted({re.sub(r"\d+", "N", path) for path in layers})
        raise UserError(f"{where}.lora.targets={config.targets!r} matches no linear layer in full; there are {there}")
    shapes, specs = (flatten_dict(tree, sep="/") for tree in (unbox(params), logical_specs(params)))
    out = {}
    for i, path in enumerate(targets):
        inputs, outputs = shapes[f"{path}/kernel"].shape
        names = tuple(specs[f"{path}/kernel"]) or (None, None)
        a = named(_a_init, names[0], None)(jax.random.fold_in(key, i), (inputs, config.rank))
        b = named(nn.initializers.zeros, None, names[1])(key, (config.rank, outputs))
        out |= {f"{path}/a": a, f"{path}/b": b}
    return unflatten_dict(out, sep="/")


@contextlib.contextmanager
def adapted(lora: Mapping[str, Any], config: LoraConfig, rows: jax.Array, train: bool) -> Iterator[None]:
    """Within it the linear layers of a tower that have parameters in `lora` add their low-rank product.

    rows: int32[b], the global row of each input; dropout is drawn for rows, not for places in the batch.
    """
    leaves = flatten_dict(lora, sep="/")

    def add(call, args, kwargs, context):
        y, path = call(*args, **kwargs), _linear_path(context)
        if path is None or f"{path}/a" not in leaves:
            return y
        x = args[0].astype(y.dtype)
        if train and config.dropout:
            x = _drop(x, context.module, config.dropout, rows)
        return y + config.scale * (x @ leaves[f"{path}/a"].astype(y.dtype)) @ leaves[f"{path}/b"].astype(y.dtype)

    with nn.intercept_methods(add):
        yield


def _linear_path(context) -> str | None:
    """The path of a linear layer that is being called; None for any other method."""
    if context.method_name != "__call__" or not isinstance(context.module, nn.Dense):
        return None
    return "/".join(context.module.path)


def _drop(x: jax.Array, layer: nn.Module, rate: float, rows: jax.Array) -> jax.Array:
    each, rest = divmod(x.shape[0], rows.shape[0])
    if rest:
        raise UserError(
            f"lora.dropout needs inputs with an axis of rows in front, which {'/'.join(layer.path)} has not; leave it "
            "out of lora.targets, or set dropout=0"
        )
    rows = (rows[:, None] * each + np.arange(each)[None]).reshape(-1)
    return drop(x, layer.make_rng("dropout"), rows, rate)


def merge_lora(params: Mapping[str, Any], lora: Mapping[str, Any], config: LoraConfig) -> dict[str, Any]:
    """The parameters of a plain tower that computes what the adapted one does without dropout; adapted kernels become
    `W + alpha / rank * a b` (section 4.1 of the paper), NumPy arrays [in, out]."""
    leaves, low = flatten_dict(params, sep="/"), flatten_dict(lora, sep="/")
    for path in (name.removesuffix("/a") for name in low if name.endswith("/a")):
        # On the host, whatever mesh is set.
        kernel, a, b = (np.asarray(x) for x in (leaves[f"{path}/kernel"], low[f"{path}/a"], low[f"{path}/b"]))
        leaves[f"{path}/kernel"] = kernel + np.float32(config.scale) * (a @ b)
    return unflatten_dict(leaves, sep="/")


def peft_state(lora: Mapping[str, Any], torch_layer: Callable[[str], str]) -> dict[str, np.ndarray]:
    """The weights by the names of peft's adapter files: `base_model.model.<layer>.lora_A.weight` [rank, in] and
    `lora_B.weight` [out, rank].

    torch_layer: from the path of a linear layer to its name in the PyTorch model.
    """
    out = {}
    for name, value in flatten_dict(lora, sep="/").items():
        path, _, matrix = name.rpartition("/")
        key = f"base_model.model.{torch_layer(path)}.lora_{matrix.upper()}.weight"
        out[key] = np.array(np.asarray(value, np.float32).T, order="C")
    return out
