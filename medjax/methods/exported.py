"""An encoder as PyTorch's files hold it, and back from an exported folder to an `Encoder`."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from medjax.config import build
from medjax.convert import rules
from medjax.convert.architecture import architecture, exported_part
from medjax.convert.tables import encoder_rules
from medjax.data.batch import Batch, Items
from medjax.data.manifest import Manifest
from medjax.data.transforms import make_transforms
from medjax.errors import UserError
from medjax.methods import make_method
from medjax.methods.base import Method
from medjax.methods.encoder import Encoder

MARKER = "medjax_export.json"
FORMAT = "medjax-export-1"
WEIGHTS = "model.safetensors"


def in_float32(encoder: Encoder) -> Encoder:
    """The same encoder, computing in float32 throughout: what an export holds."""
    options = encoder.config["method"]
    towers = {m: t | {"dtype": "float32"} if "dtype" in t else t for m, t in options["towers"].items()}
    if towers == options["towers"]:
        return encoder
    config = {**encoder.config, "method": {**options, "towers": towers}}
    method = make_method(config["method"], {m: t.spec() for m, t in encoder.transforms.items()})
    return Encoder.create(method, encoder.params, encoder.transforms, encoder.manifest, config, encoder.step)


def torch_config(encoder: Encoder) -> dict[str, Any]:
    """The config.json of `medjax.torch.modeling`."""
    heads = {}
    if "heads" in encoder.params:
        c = encoder.method.config
        heads = {m: c.heads.get(m, c.head) for m in encoder.modalities}
    specs = {m: encoder.transforms[m].spec() for m in encoder.modalities}
    return architecture(_tower_configs(encoder.method), heads, encoder.params, specs)


def torch_state(encoder: Encoder, shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """The weights by PyTorch's names, float32; shapes: of the PyTorch model's state.

    Raises:
      UserError: names every weight that does not fit.
    """
    return rules.to_torch(exported_part(encoder.params), _rules(encoder.method), shapes)


def load_export(directory: str | Path) -> Encoder:
    """The encoder of a folder written by `medjax.bin.export`, computing in float32.

    Raises:
      UserError: another format, or files that are missing, damaged or do not fit together.
    """
    directory = Path(directory)
    try:
        about = json.loads((directory / MARKER).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{directory / MARKER} cannot be read ({error}); export the run again") from None
    if about.get("format") != FORMAT:
        raise UserError(f"{directory / MARKER} has format {about.get('format')!r}, this version reads {FORMAT!r}")
    missing = [key for key in ("manifest", "modalities", "method", "checkpoint") if key not in about]
    if missing:
        raise UserError(f"{directory / MARKER} lacks {', '.join(missing)}; export the run again")
    manifest = build(Manifest, about["manifest"], f"manifest of {directory / MARKER}")
    config = {"data": {"dir": "", "modalities": about["modalities"]}, "method": about["method"]}
    transforms = make_transforms(about["modalities"], manifest, directory)
    method = make_method(config["method"], {m: t.spec() for m, t in transforms.items()})
    try:
        state = safetensors.numpy.load_file(directory / WEIGHTS)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{directory / WEIGHTS} cannot be read ({error}); export the run again") from None
    wanted = exported_part(jax.eval_shape(method.init, jax.random.key(0), _example(transforms))[0])
    shapes = {path: leaf.shape for path, leaf in rules.flatten(wanted).items()}
    params = jax.device_put(rules.to_flax(state, _rules(method), shapes), jax.local_devices()[0])
    return Encoder.create(method, params, transforms, manifest, config, about["checkpoint"]["step"])


def _tower_configs(method: Method) -> dict[str, Any]:
    return {m: module.config for m, module in method.towers.modules.items()}


def _rules(method: Method) -> tuple[rules.Rule, ...]:
    return encoder_rules({m: config.name for m, config in _tower_configs(method).items()})


def _example(transforms: Mapping[str, Any]) -> Batch:
    """One study in which every modality is absent; only its shapes matter."""
    values = {m: jax.tree.map(lambda x: np.asarray(x)[None, None], t.empty()) for m, t in transforms.items()}
    items = {m: Items(x, np.zeros((1, 1), bool)) for m, x in values.items()}
    return Batch(items, {}, np.zeros(1, np.float32), np.ones(1, bool), {}, np.zeros(1, np.int32))


def public_manifest(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON without what only the data set needs: its shard files and the counts of its splits."""
    return dataclasses.asdict(dataclasses.replace(manifest, splits={}))
