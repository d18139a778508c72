"""Folders of tiny models as others publish them, and how what is loaded from them is compared."""

import json
import re
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from medjax.convert import load_pretrained
from medjax.convert.files import read_state
from medjax.convert.pretrained import find_layout
from medjax.convert.rules import flatten, to_torch

PARITY = 2e-5  # float32, a few layers of unit-sized features


def randomised(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """In evaluation mode, with nothing left at its initial zero or one."""
    generator = torch.Generator().manual_seed(seed)
    for x in model.state_dict().values():  # masks, which are not in it, stay as they are
        if x.is_floating_point():
            noise = 0.1 * torch.randn(x.shape, generator=generator)
            x.data += noise.abs() if x.ndim == 1 else 0.1 * noise  # variances stay positive
    return model.eval()


def save(
    model: torch.nn.Module, directory: Path, config: dict, name="config.json", weights="model.safetensors"
) -> Path:
    """A folder with a JSON file and a state."""
    directory.mkdir(parents=True, exist_ok=True)
    state = {key: x.detach().contiguous().numpy() for key, x in model.state_dict().items()}
    save_file(state, directory / weights)
    (directory / name).write_text(json.dumps(config))
    return directory


def nchw(value: np.ndarray) -> torch.Tensor:
    """[b, H, W, C] as PyTorch takes it."""
    return torch.from_numpy(np.ascontiguousarray(value.transpose(0, 3, 1, 2)))


def assert_equal(found, want: torch.Tensor) -> None:
    """Within what float32 allows."""
    np.testing.assert_allclose(np.asarray(found), want.detach().numpy(), rtol=0, atol=PARITY)


def assert_round_trip(directory: Path, variables) -> None:
    """Weights turned back are those of the file, bit for bit."""
    layout, state = find_layout(directory, read_state(directory))
    state = {k: x for k, x in state.items() if not any(re.fullmatch(pattern, k) for pattern in layout.ignored)}
    back = to_torch(variables, layout.rules)
    assert back.keys() == state.keys()
    for key, x in state.items():
        assert np.array_equal(back[key], x), key


def assert_parts_are_those_of_the_pair(directory: Path, model, params) -> None:
    """Either tower loaded alone is the same module with the same weights."""
    for part in ("image", "text"):
        tower, alone = load_pretrained(directory, part=part)
        assert tower.config == getattr(model, part).config
        want = flatten({collection: tree[part] for collection, tree in params.items() if part in tree})
        found = flatten(alone)
        assert found.keys() == want.keys()
        for path, x in want.items():
            np.testing.assert_array_equal(found[path], x)
