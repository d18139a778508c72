"""Writes an export folder for `medjax.torch`, and publishes it only if PyTorch computes from it what JAX computes."""

import itertools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from medjax.bin import export_folder as folders
from medjax.bin.export_folder import Agreement
from medjax.data import Dataset
from medjax.data.tokenizer import FOLDER as TOKENIZER
from medjax.errors import UserError
from medjax.methods import exported
from medjax.methods.encoder import Encoder

_BATCH = 16


def export_torch(
    encoder: Encoder,
    dataset: Dataset,
    output: Path,
    name: str,
    tolerance: float,
    examples: int,
    overwrite: bool,
    extra: Mapping[str, Any] | None = None,
) -> Agreement:
    """Writes `output`, after comparing on `examples` studies of the data set.

    name: of the checkpoint. tolerance: the largest absolute difference of any embedding entry that is let pass. extra:
    further entries of the description.

    Raises:
      UserError: PyTorch is missing, `output` exists, or the embeddings differ; then nothing is left behind.
    """
    try:
        import medjax.torch
    except ImportError as error:
        raise UserError(f"the export needs PyTorch ({error}); pip install torch") from None
    encoder = exported.standalone(encoder)
    with folders.published(output, overwrite) as folder:
        write_model(encoder, folder)
        found = compare(encoder, medjax.torch.load(folder), dataset, examples)
        found.check(tolerance, "embeddings")
        folders.write_description(encoder, folder, encoder.modalities, name, (found, tolerance), extra or {})
    return found


def write_model(encoder: Encoder, folder: Path) -> None:
    """Everything that PyTorch loads."""
    import medjax.torch.modeling as modeling

    specs = {m: encoder.transforms[m].spec() for m in encoder.modalities}
    config = exported.torch_config(encoder)
    wanted = modeling.Encoder(config, specs).state_dict()
    state = exported.torch_state(encoder, {k: tuple(v.shape) for k, v in wanted.items()})
    folders.write_weights(folder / exported.WEIGHTS, state)
    folders.write_json(folder / "config.json", config)
    folders.write_json(folder / "preprocessing.json", specs)
    shutil.copyfile(modeling.__file__, folder / "modeling.py")
    for m, spec in specs.items():
        if spec["kind"] == "text":
            folders.write_tokenizer(encoder.transforms[m].tokenizer, folder / TOKENIZER, spec["length"])


def compare(encoder: Encoder, other: Any, dataset: Dataset, examples: int) -> Agreement:
    """JAX's embeddings against those of a PyTorch encoder, on the validation split."""
    differences, count = [0.0], 0
    with jax.default_matmul_precision("highest"):
        batches = dataset.evaluation(folders.split_of(dataset), _BATCH)
        for i, batch in enumerate(itertools.islice(batches, max(1, examples // _BATCH))):
            if i == 0:
                batch.valid[0] = False  # a study with nothing, whatever the data set has
            batch = batch.only_valid()
            for m, want in encoder.encode(batch).pooled.items():
                got = other.encode(m, batch.items[m].value, batch.items[m].mask)
                differences.append(folders.difference(want, got.detach().cpu()))
            count += int(batch.valid.sum())
        raw = folders.raw_inputs(encoder, dataset, encoder.modalities, _BATCH)
        for m, values in raw.items():
            got = other.embed({m: values})[m]
            differences.append(folders.difference(encoder.embed({m: values})[m], got.cpu()))
    return Agreement(max(differences), count, sum(map(len, raw.values())))
