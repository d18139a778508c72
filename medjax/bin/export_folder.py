"""What exports of every format share: a folder that appears whole or not at all, its description and its tokenizer."""

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import tokenizers

import medjax
from medjax.convert.card import model_card
from medjax.data import Dataset
from medjax.data.privacy import licence
from medjax.data.records import decode_text
from medjax.errors import UserError
from medjax.methods import exported
from medjax.methods.encoder import Encoder

_SPECIAL = {
    "pad_token": ("[PAD]", "<pad>", "<|endoftext|>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
    "bos_token": ("<|startoftext|>",),
    "eos_token": ("<|endoftext|>",),
}


@dataclass(frozen=True)
class Agreement:
    """max_abs_difference: of any entry that is compared, NaN counting as infinite. examples: studies compared from
    preprocessed arrays. raw_inputs: items compared through the preprocessing.
    """

    max_abs_difference: float
    examples: int
    raw_inputs: int

    def check(self, tolerance: float, what: str) -> None:
        """Raises UserError where they differ by more than `tolerance`."""
        if not self.max_abs_difference <= tolerance:
            raise UserError(
                f"PyTorch's {what} differ from JAX's by up to {self.max_abs_difference:.3g}, more than "
                f"--tolerance={tolerance:g}; nothing was exported. If they are large numbers, raise it"
            )


@contextlib.contextmanager
def published(output: Path, overwrite: bool) -> Iterator[Path]:
    """A folder beside `output` that takes its place at the end, or disappears at an error.

    Raises:
      UserError: `output` exists, and is no earlier export or not to be replaced.
    """
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


def write_json(path: Path, value: Any) -> None:
    """As people read it."""
    path.write_text(json.dumps(value, indent=1) + "\n")


def write_weights(path: Path, state: Mapping[str, np.ndarray]) -> None:
    """Safetensors, readable by others than its owner."""
    safetensors.numpy.save_file(dict(state), path, {"format": "pt"})
    path.chmod(0o644)


def write_tokenizer(tokenizer: tokenizers.Tokenizer, folder: Path, length: int) -> None:
    """Only what the tokenizer is: configurations that users bring may hold paths. length: of the longest text."""
    tokenizer = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    tokenizer.no_truncation()
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    known = {k: [t for t in names if tokenizer.token_to_id(t) is not None] for k, names in _SPECIAL.items()}
    options = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": length,
        "padding_side": "right",
        "model_input_names": ["input_ids", "attention_mask"],
    }
    special = {k: names[0] for k, names in known.items() if names}
    if tokenizer.padding:  # which may be another token than its usual name says
        special["pad_token"] = tokenizer.padding["pad_token"]
    write_json(folder / "tokenizer_config.json", options | special)


def write_description(
    encoder: Encoder,
    folder: Path,
    modalities: Sequence[str],
    name: str,
    check: tuple[Agreement, float],
    extra: Mapping[str, Any],
    loading: str = "",
) -> None:
    """medjax_export.json and the model card.

    name: of the checkpoint. check: what was found, and the tolerance. extra: entries of the description that others
    know: "format", "metrics", "license", "terms" (of all data behind the weights). loading: the card's section; default
    that of `medjax.torch`.
    """
    found, tolerance = check
    manifest, step = encoder.manifest, encoder.step or 0
    given = encoder.config.get("given", {}).get("method", {}).get("towers", {})
    about = {
        "format": exported.FORMAT,
        "medjax": medjax.__version__,
        "commit": _commit(),
        "checkpoint": {
            "name": name,
            "step": step,
            "chosen_by": encoder.config.get("train", {}).get("best_metric") if name == "best" else None,
        },
        "examples_seen": encoder.examples,
        "pretrained": {m: Path(t["pretrained"]).name for m, t in given.items() if t.get("pretrained")},
        "data": {
            "name": manifest.name,
            "synthetic": manifest.synthetic,
            "licence": manifest.licence,
            "sensitive": manifest.sensitive,
            "texts_from_labels": manifest.texts_from_labels,
            "manifest_sha256": manifest.digest(),
            "training_examples": manifest.splits["train"].examples,
        },
        "terms": dataclasses.asdict(licence.of(manifest)),
        "verification": {
            "max_abs_difference": found.max_abs_difference,
            "tolerance": tolerance,
            "examples": found.examples,
            "raw_inputs": found.raw_inputs,
        },
        "method": encoder.config["method"],
        "modalities": {m: encoder.config["data"]["modalities"][m] for m in encoder.modalities},
        "manifest": exported.public_manifest(manifest),
    } | extra
    write_json(folder / exported.MARKER, about)
    config = exported.torch_config(encoder)
    config["modalities"] = {m: c for m, c in config["modalities"].items() if m in modalities}
    if loading and len(modalities) == 1:  # the tower without its projection
        ((m, tower),) = config["modalities"].items()
        config = config | {"embed_dim": tower["width"], "modalities": {m: tower | {"head": None}}}
    specs = {m: encoder.transforms[m].spec() for m in modalities}
    (folder / "README.md").write_text(model_card(about, config, specs, loading))


def _commit() -> str | None:
    """The revision of medjax, where it runs from a checkout."""
    here = Path(medjax.__file__).parent
    known = ["git", "-C", str(here), "ls-files", "--error-unmatch", "__init__.py"]
    try:
        subprocess.run(known, capture_output=True, check=True)
        found = subprocess.run([*known[:3], "rev-parse", "HEAD"], capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def raw_inputs(encoder: Encoder, dataset: Dataset, modalities: Sequence[str], limit: int) -> dict[str, list[Any]]:
    """Items as users have them, `{modality: [input]}`, without those that cannot be used."""
    split = split_of(dataset)
    out: dict[str, list[Any]] = {m: [] for m in modalities}
    for items in dataset.raw_items(split, range(min(limit, len(dataset.source(split))))):
        for m, values in out.items():
            for item in items[m]:
                with contextlib.suppress(UserError):
                    encoder.transforms[m].prepare(item)
                    values.append(_as_given(encoder.transforms[m].kind, item))
    return {m: values for m, values in out.items() if values}


def _as_given(kind: str, item: Any) -> Any:
    if kind == "text":
        return decode_text(item)
    if kind == "volume":
        return {"values": item.values, "spacing": item.spacing}
    return item.tobytes() if kind == "image" and item.ndim == 1 else item


def split_of(dataset: Dataset) -> str:
    """The split that both sides are compared on."""
    return "validation" if "validation" in dataset.manifest.splits else next(iter(dataset.manifest.splits))


def difference(want: Any, got: Any) -> float:
    """The largest between two arrays; infinite where one is not a number."""
    found = np.abs(np.asarray(want, np.float32) - np.asarray(got, np.float32)).max(initial=0.0)
    return float(found) if np.isfinite(found) else float("inf")
