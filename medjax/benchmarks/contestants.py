"""Losses by name, each as a function without arguments that returns the value and throws the gradient away.

Every maker imports what it needs itself: a process holds one contestant and its libraries, and no other.
"""

import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType

import numpy as np

SEED = 0
SCALE = 14.2857  # 1 / 0.07, CLIP's start
BIAS = -10.0
Call = Callable[[], float]


def inputs(rows: int, modalities: int, width: int) -> list[np.ndarray]:
    """Unit vectors float32 [rows, width] of each modality that share a direction within a row, the same every time."""
    rng = np.random.default_rng(SEED)
    shared = rng.standard_normal((rows, width), np.float32)
    out = [shared + rng.standard_normal((rows, width), np.float32) for _ in range(modalities)]
    return [x / np.linalg.norm(x, axis=1, keepdims=True) for x in out]


def _medjax(arrays: list[np.ndarray], name: str, bias: float | None = None, **options) -> Call:
    import jax
    import jax.numpy as jnp

    from medjax import losses

    objective = losses.get(name, **options)
    more = {} if bias is None else {"logit_bias": jnp.float32(bias)}

    def loss(z, scale, more):
        return objective(z, logit_scale=scale, **more).mean()

    gradient = jax.jit(jax.value_and_grad(loss, (0, 1)))
    z = {f"m{i}": jnp.asarray(x) for i, x in enumerate(arrays)}
    return lambda: float(jax.block_until_ready(gradient(z, jnp.float32(SCALE), more))[0])


def _torch(arrays: list[np.ndarray], loss: Callable) -> Call:
    import torch

    def call() -> float:
        z = [torch.tensor(x, requires_grad=True) for x in arrays]
        value = loss(*z, torch.tensor(SCALE, requires_grad=True))
        value.backward()
        return value.item()

    return call


def _open_clip(arrays: list[np.ndarray], name: str) -> Call:
    import torch

    loss = getattr(loss_module("open_clip"), name)()
    if name == "SigLipLoss":
        return _torch(arrays, lambda x, y, scale: loss(x, y, scale, torch.tensor(BIAS)))
    return _torch(arrays, loss)


def loss_module(package: str) -> ModuleType:
    """The package's `loss.py` alone: the rest of open_clip needs torchvision."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(name=package)
    path = f"{next(iter(found.submodule_search_locations))}/loss.py"
    spec = importlib.util.spec_from_file_location(f"{package}_loss", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _determinants(arrays: list[np.ndarray]) -> Call:
    """GRAM by grids of M x M determinants, as the released code has it: one grid for each direction, with a gradient
    of the anchors in the one and of the others in the other.
    """
    import torch
    from torch.nn.functional import cross_entropy

    def volumes(anchor, others):
        b, m = len(anchor), len(others) + 1
        entries = [[None] * m for _ in range(m)]
        entries[0][0] = (anchor * anchor).sum(1)[:, None].expand(b, b)
        for i, x in enumerate(others, start=1):
            entries[0][i] = entries[i][0] = anchor @ x.T
            for j, y in enumerate(others, start=1):
                entries[i][j] = (x * y).sum(1)[None, :].expand(b, b)
        grid = torch.stack([torch.stack(row, dim=-1) for row in entries], dim=-2)  # [b, b, m, m]
        return torch.det(grid).abs().sqrt()

    def loss(*inputs):
        anchor, *others, scale = inputs
        own = torch.arange(len(anchor))
        rows = -scale * volumes(anchor, [x.detach() for x in others])
        columns = -scale * volumes(anchor.detach(), others).T
        return sum(cross_entropy(s, own, label_smoothing=0.1) for s in (rows, columns)) / 2

    return _torch(arrays, loss)


def _symile_package(arrays: list[np.ndarray]) -> Call:
    from symile import Symile

    loss = Symile(negative_sampling="n_squared")
    return _torch(arrays, lambda *inputs: loss(list(inputs[:-1]), inputs[-1]))


def make(name: str, rows: int, modalities: int, width: int) -> Call:
    """A contestant with its inputs."""
    return CONTESTANTS[name](inputs(rows, modalities, width))


CONTESTANTS: dict[str, Callable[[list[np.ndarray]], Call]] = {
    "medjax info_nce": partial(_medjax, name="info_nce"),
    "medjax sigmoid": partial(_medjax, name="sigmoid", bias=BIAS),
    "medjax gram": partial(_medjax, name="gram", anchor="m0"),
    "medjax symile n_squared": partial(_medjax, name="symile", negatives="n_squared"),
    "open_clip ClipLoss": partial(_open_clip, name="ClipLoss"),
    "open_clip SigLipLoss": partial(_open_clip, name="SigLipLoss"),
    "torch.det grids, as GRAM": _determinants,
    "symile package n_squared": _symile_package,
}
