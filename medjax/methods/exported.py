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
from medjax.convert.architecture import architecture, exported_tree, params_and_state
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


def standalone(encoder: Encoder, merge: bool = True) -> Encoder:
    """The same encoder as an export holds it: computing in float32 throughout, LoRA merged, every option of its towers
    spelt out, so that nothing beside the export is needed to rebuild it.

    merge: False keeps LoRA apart, for those who write it beside the base.
    """
    method, params = encoder.method, encoder.params
    towers = {m: dataclasses.asdict(config) for m, config in tower_configs(method).items()}
    towers = {m: c | {"dtype": "float32"} if "dtype" in c else c for m, c in towers.items()}
    joint = encoder.config["method"].get("joint", False)
    if merge or joint:
        params = method.towers.merged(params)
    else:
        towers = {m: c | _lora(method, m) for m, c in towers.items()}
    alone = {"joint": False} if joint else {}  # its towers are plain now
    config = {**encoder.config, "method": {**encoder.config["method"], "towers": towers, **alone}}
    method = make_method(config["method"], {m: t.spec() for m, t in encoder.transforms.items()})
    about = encoder.transforms, encoder.manifest, config, encoder.step, encoder.examples
    return Encoder.create(method, params, encoder.state, *about)


def _lora(method: Method, modality: str) -> dict[str, Any]:
    lora = method.towers.lora.get(modality)
    return {"lora": dataclasses.asdict(lora)} if lora else {}


def torch_config(encoder: Encoder) -> dict[str, Any]:
    """The config.json of `medjax.torch.modeling`."""
    method, tree = encoder.method, exported_tree(encoder.params, encoder.state)
    heads, pooling = {}, {}
    if "heads" in tree:
        heads = {m: method.config.heads.get(m, method.config.head) for m in encoder.modalities}
    if "pooling" in tree:
        pooling = {m: pool.config for m, pool in method.pooling.modules.items()}
    specs = {m: encoder.transforms[m].spec() for m in encoder.modalities}
    return architecture(tower_configs(method), heads, pooling, tree, specs)


def torch_state(encoder: Encoder, shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """The weights by PyTorch's names, float32; shapes: of the PyTorch model's state.

    Raises:
      UserError: names every weight that does not fit.
    """
    return rules.to_torch(exported_tree(encoder.params, encoder.state), _rules(encoder.method), shapes)


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
        raise UserError(
            f"{directory / MARKER} has format {about.get('format')!r}, this version reads {FORMAT!r}; exports for "
            "others are read by medjax.convert.load_pretrained"
        )
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
    params, stats = jax.eval_shape(method.init, jax.random.key(0), _example(transforms))
    shapes = {path: leaf.shape for path, leaf in rules.flatten(exported_tree(params, stats)).items()}
    tree = jax.device_put(rules.to_flax(state, _rules(method), shapes), jax.local_devices()[0])
    trained = about["checkpoint"]["step"], about.get("examples_seen", 0)
    return Encoder.create(method, *params_and_state(tree), transforms, manifest, config, *trained)


def tower_configs(method: Method) -> dict[str, Any]:
    """`{modality: config of its tower}`."""
    return {m: module.config for m, module in method.towers.modules.items()}


def _rules(method: Method) -> tuple[rules.Rule, ...]:
    return encoder_rules({m: config.name for m, config in tower_configs(method).items()})


def _example(transforms: Mapping[str, Any]) -> Batch:
    """One study in which every modality is absent; only its shapes matter."""
    values = {m: jax.tree.map(lambda x: np.asarray(x)[None, None], t.empty()) for m, t in transforms.items()}
    items = {m: Items(x, np.zeros((1, 1), bool)) for m, x in values.items()}
    return Batch(items, {}, np.zeros(1, np.float32), np.ones(1, bool), {}, np.zeros(1, np.int32))


def public_manifest(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON without what only the data set needs: its shard files and the counts of its splits."""
    return dataclasses.asdict(dataclasses.replace(manifest, splits={}))
