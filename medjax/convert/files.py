"""Weights as files of others: safetensors, whole or in shards, and PyTorch's own where PyTorch is installed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from medjax.errors import UserError

_SAFE = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.safetensors")
_PICKLED = ("pytorch_model.bin", "open_clip_pytorch_model.bin")
_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
      UserError: it cannot be read.
    """
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); copy the folder again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object; copy the folder again")
    return value


def read_state(directory: Path) -> dict[str, np.ndarray]:
    """`{key: array}` of the weights in a folder; 16-bit floats become float32.

    Pickled files are read by `torch.load(weights_only=True)`, which runs none of their code.

    Raises:
      UserError: there are none, they cannot be read, or PyTorch would be needed.
    """
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(read_json(index).get("weight_map", {}).values()))
        if missing := [name for name in shards if not (directory / name).is_file()]:
            raise UserError(f"{directory} lacks {', '.join(missing)}, which {index.name} names; copy them too")
        return {key: x for name in shards for key, x in _safetensors(directory / name).items()}
    for name in _SAFE:
        if (directory / name).is_file():
            return _safetensors(directory / name)
    files = [directory / name for name in _PICKLED if (directory / name).is_file()]
    files += sorted(p for p in directory.iterdir() if p.suffix in (".safetensors", *_SUFFIXES) and p not in files)
    if not files:
        raise UserError(f"{directory} holds no weights; copy its model.safetensors there")
    if len(files) > 1 and files[0].name not in _PICKLED:
        raise UserError(f"{directory} holds several weights ({', '.join(p.name for p in files)}); keep one")
    return _safetensors(files[0]) if files[0].suffix == ".safetensors" else _pickled(files[0])


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        with safetensors.safe_open(path, framework="flax") as file:
            return {key: _widened(np.asarray(file.get_tensor(key))) for key in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}); copy it again") from None


def _pickled(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path} is pickled and needs PyTorch to read: pip install torch, or save it as model.safetensors"
        ) from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path} holds more than weights ({str(error).splitlines()[0]}) and is not run; where you trust it, "
            "load it with PyTorch and save its state with safetensors"
        ) from None
    for name in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    tensors = {key: x for key, x in content.items() if isinstance(x, torch.Tensor)}
    return {key: (x.float() if x.is_floating_point() else x).numpy() for key, x in tensors.items()}


def _widened(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) if x.dtype.itemsize == 2 and x.dtype.kind in "fV" else x
