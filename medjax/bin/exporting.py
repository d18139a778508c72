"""Writes an export folder, and publishes it only if PyTorch computes from it what JAX computes."""

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy
import tokenizers

import medjax
from medjax.convert.card import model_card
from medjax.data import DataConfig, Dataset
from medjax.data.records import decode, decode_text, items_of
from medjax.data.tokenizer import FOLDER as TOKENIZER
from medjax.errors import UserError
from medjax.methods import exported
from medjax.methods.encoder import Encoder

_BATCH = 16
_SPECIAL = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}


@dataclass(frozen=True)
class Agreement:
    """max_abs_difference: of any embedding entry, NaN counting as infinite. examples: studies compared from
    preprocessed arrays. raw_inputs: items compared through the preprocessing.
    """

    max_abs_difference: float
    examples: int
    raw_inputs: int


def export_torch(
    encoder: Encoder, dataset: Dataset, output: Path, name: str, tolerance: float, examples: int, overwrite: bool
) -> Agreement:
    """Writes `output`, after comparing on `examples` studies of the data set.

    name: of the checkpoint. tolerance: the largest absolute difference of any embedding entry that is let pass.

    Raises:
      UserError: PyTorch is missing, `output` exists, or the embeddings differ; then nothing is left behind.
    """
    try:
        import medjax.torch
    except ImportError as error:
        raise UserError(f"the export needs PyTorch ({error}); pip install torch") from None
    encoder = exported.standalone(encoder)
    with _published(output, overwrite) as folder:
        write_model(encoder, folder)
        found = compare(encoder, medjax.torch.load(folder), dataset, examples)
        if not found.max_abs_difference <= tolerance:
            raise UserError(
                f"PyTorch's embeddings differ from JAX's by up to {found.max_abs_difference:.3g}, more than "
                f"--tolerance={tolerance:g}; nothing was exported. If the embeddings are large numbers, raise it"
            )
        write_description(encoder, folder, name, found, tolerance)
    return found


@contextlib.contextmanager
def _published(output: Path, overwrite: bool) -> Iterator[Path]:
    """A folder beside `output` that takes its place at the end, or disappears at an error."""
    if output.exists() and not overwrite:
        raise UserError(f"{output} exists; pass --overwrite to replace it, or another --output")
    if output.exists() and not (output / exported.MARKER).is_file():
        raise UserError(f"{output} holds no earlier export and is not replaced; pass another --output")
    made = [p for p in (output.parent, *output.parent.parents) if not p.exists()]
    folder, old = (output.parent / f".{output.name}.{what}-{os.getpid()}" for what in ("new", "old"))
    folder.mkdir(parents=True)
    try:
        yield folder
        if output.exists():
            output.rename(old)
        folder.rename(output)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        if old.exists() and not output.exists():
            old.rename(output)
        for parent in made:
            parent.rmdir()
        raise


def write_model(encoder: Encoder, folder: Path) -> None:
    """Everything that PyTorch loads."""
    import medjax.torch.modeling as modeling

    specs = {m: encoder.transforms[m].spec() for m in encoder.modalities}
    config = exported.torch_config(encoder)
    wanted = modeling.Encoder(config, specs).state_dict()
    state = exported.torch_state(encoder, {k: tuple(v.shape) for k, v in wanted.items()})
    safetensors.numpy.save_file(state, folder / exported.WEIGHTS, {"format": "pt"})
    (folder / exported.WEIGHTS).chmod(0o644)  # safetensors makes it readable by its owner alone
    _write_json(folder / "config.json", config)
    _write_json(folder / "preprocessing.json", specs)
    shutil.copyfile(modeling.__file__, folder / "modeling.py")
    for transform in (encoder.transforms[m] for m in encoder.modalities):
        if transform.kind == "text":
            _write_tokenizer(transform.tokenizer, folder / TOKENIZER)


def _write_tokenizer(tokenizer: tokenizers.Tokenizer, folder: Path) -> None:
    """Only what the tokenizer is: configurations that users bring may hold paths."""
    tokenizer = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    tokenizer.no_truncation()
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    known = {k: [t for t in names if tokenizer.token_to_id(t) is not None] for k, names in _SPECIAL.items()}
    special = {k: names[0] for k, names in known.items() if names}
    _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **special})


def write_description(encoder: Encoder, folder: Path, name: str, found: Agreement, tolerance: float) -> None:
    """medjax_export.json and the model card."""
    manifest, data, step = encoder.manifest, encoder.config["data"], encoder.step or 0
    chosen_by = encoder.config.get("train", {}).get("best_metric") if name == "best" else None
    about = {
        "format": exported.FORMAT,
        "medjax": medjax.__version__,
        "checkpoint": {"name": name, "step": step, "chosen_by": chosen_by},
        "examples_seen": step * data.get("batch_size", DataConfig.batch_size),
        "data": {
            "name": manifest.name,
            "synthetic": manifest.synthetic,
            "licence": manifest.licence,
            "sensitive": manifest.sensitive,
            "texts_from_labels": manifest.texts_from_labels,
            "manifest_sha256": manifest.digest(),
            "training_examples": manifest.splits["train"].examples,
        },
        "verification": {
            "max_abs_difference": found.max_abs_difference,
            "tolerance": tolerance,
            "examples": found.examples,
            "raw_inputs": found.raw_inputs,
        },
        "method": encoder.config["method"],
        "modalities": {m: data["modalities"][m] for m in encoder.modalities},
        "manifest": exported.public_manifest(manifest),
    }
    _write_json(folder / exported.MARKER, about)
    config, preprocessing = (json.loads((folder / f"{k}.json").read_text()) for k in ("config", "preprocessing"))
    (folder / "README.md").write_text(model_card(about, config, preprocessing))


def compare(encoder: Encoder, other: Any, dataset: Dataset, examples: int) -> Agreement:
    """JAX's embeddings against those of a PyTorch encoder, on the validation split."""
    split = "validation" if "validation" in dataset.manifest.splits else next(iter(dataset.manifest.splits))
    differences, count = [0.0], 0
    with jax.default_matmul_precision("highest"):
        batches = itertools.islice(dataset.evaluation(split, _BATCH), max(1, examples // _BATCH))
        for i, batch in enumerate(batches):
            if i == 0:
                batch.valid[0] = False  # a study with nothing, whatever the data set has
            batch = batch.only_valid()
            for m, want in encoder.encode(batch).pooled.items():
                differences.append(_difference(want, other.encode(m, batch.items[m].value, batch.items[m].mask)))
            count += int(batch.valid.sum())
        raw = _raw_inputs(encoder, dataset, split, _BATCH)
        for m, values in raw.items():
            differences.append(_difference(encoder.embed({m: values})[m], other.embed({m: values})[m]))
    return Agreement(max(differences), count, sum(map(len, raw.values())))


def _raw_inputs(encoder: Encoder, dataset: Dataset, split: str, limit: int) -> dict[str, list[Any]]:
    """Items as users have them, `{modality: [input]}`, without those that cannot be used."""
    source = dataset.source(split)
    out: dict[str, list[Any]] = {m: [] for m in encoder.modalities}
    for i in range(min(limit, len(source))):
        record = decode(source[i])
        for m, values in out.items():
            for item in items_of(record, m):
                with contextlib.suppress(UserError):
                    encoder.transforms[m].prepare(item)
                    values.append(_as_given(encoder.transforms[m].kind, item))
    return {m: values for m, values in out.items() if values}


def _as_given(kind: str, item: np.ndarray) -> Any:
    if kind == "text":
        return decode_text(item)
    return item.tobytes() if kind == "image" and item.ndim == 1 else item


def _difference(want: Any, got: Any) -> float:
    difference = np.abs(np.asarray(want, np.float32) - got.detach().cpu().numpy()).max()
    return float(difference) if np.isfinite(difference) else float("inf")


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")
