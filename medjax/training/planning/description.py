"""The data that a plan is made for: a data set, its manifest alone, or assumptions where there is neither."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tokenizers

from medjax.data import manifest as manifests
from medjax.data import tokenizer as tok
from medjax.data.batch import Batch, from_arrays
from medjax.data.examples import Examples, stack
from medjax.data.manifest import Manifest, Modality, Split
from medjax.data.readers.leads import LEADS
from medjax.data.transforms import TRANSFORMS, Transform, make_transforms
from medjax.errors import UserError
from medjax.models import TOWERS
from medjax.training.experiment import Experiment


@dataclass(frozen=True)
class Assumed:
    """Of data that are not there. vocabulary: of texts. numbers: lab values of a table. examples: of the training
    split. labels: of an example.
    """

    vocabulary: int = 30522
    numbers: int = 50
    examples: int = 100_000
    labels: int = 14


@dataclass(frozen=True)
class Description:
    """transforms: by modality. manifest: real, or made up. notes: what was assumed."""

    transforms: Mapping[str, Transform]
    manifest: Manifest
    max_items: Mapping[str, int]
    notes: tuple[str, ...] = ()

    @property
    def specs(self) -> dict[str, Any]:
        """The preprocessing of each modality, which methods are made with."""
        return {m: t.spec() for m, t in self.transforms.items()}

    @property
    def examples(self) -> int:
        """Of the training split."""
        return self.manifest.splits["train"].examples

    def batch(self, size: int) -> Batch:
        """Shapes and dtypes of a global batch, as the pipeline would make it."""
        labels = len(self.manifest.labels)
        one = stack([Examples([], self.transforms, labels, self.max_items, cache=False).placeholder()])
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), jax.dtypes.canonicalize_dtype(x.dtype)),
            from_arrays(one),
        )


def describe_data(experiment: Experiment, assumed: Assumed) -> Description:
    """From `config.data.dir` (or the first set of a mixture), of which manifest.json and the tokenizer are read; where
    none is set, from the recipe and assumptions.

    Raises:
      UserError: a folder without a manifest, or modalities that it does not have.
    """
    data = experiment.data
    if not data.dir and not data.mixture:
        return _made_up(experiment, assumed)
    directories = [Path(s.dir) for s in data.sets().values()]
    found = [manifests.read(d) for d in directories]
    manifest = found[0] if len(found) == 1 else _joined(found)
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = next((d for d in directories if tok.has_tokenizer(d / tok.FOLDER)), None)
        if folder is None and any(m.kind == "text" for m in manifest.modalities.values()):
            notes.append(f"no tokenizer beside manifest.json: a vocabulary of {assumed.vocabulary} is assumed")
            folder = _write_tokenizer(Path(scratch), assumed.vocabulary)
        transforms = make_transforms(data.modalities, manifest, folder or directories[0])
    return Description(transforms, manifest, data.max_items, tuple(notes))


def _joined(found: list[Manifest]) -> Manifest:
    """What a plan asks of a mixture."""
    modalities = {name: m for one in reversed(found) for name, m in one.modalities.items()}
    labels = tuple(dict.fromkeys(k for one in found for k in one.labels))
    examples = sum(one.splits["train"].examples for one in found)
    train = replace(found[0].splits["train"], examples=examples)
    return replace(found[0], modalities=modalities, labels=labels, splits={**found[0].splits, "train": train})


def _made_up(experiment: Experiment, assumed: Assumed) -> Description:
    kinds = {m: _kind(m, options, experiment) for m, options in experiment.data.modalities.items()}
    modalities = {m: _modality(kind, assumed.numbers) for m, kind in kinds.items()}
    split = Split((), assumed.examples, assumed.examples, {}, {})
    labels = tuple(f"label {i}" for i in range(assumed.labels))
    flags = dict(synthetic=True, sensitive=False, patients_known=True)
    manifest = Manifest("assumed", "", "", **flags, modalities=modalities, labels=labels, findings={},
                        splits={"train": split})  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        folder = _write_tokenizer(Path(scratch), assumed.vocabulary)
        transforms = make_transforms(experiment.data.modalities, manifest, folder)
    said = {
        "text": f"a vocabulary of {assumed.vocabulary}",
        "labs": f"{assumed.numbers} lab values",
        "ecg": f"{len(LEADS)} leads",
    }
    parts = [said[k] for k in sorted(set(kinds.values())) if k in said] + [f"{assumed.examples} examples"]
    note = f"no data set is named: assumed are {', '.join(parts)}; --config.data.dir takes a folder of a manifest.json"
    return Description(transforms, manifest, experiment.data.max_items, (note,))


def _kind(name: str, options: Mapping[str, Any], experiment: Experiment) -> str:
    """What kind of modality a recipe means: as it says, by its name, or by the encoder that reads it."""
    if "kind" in options or name in TRANSFORMS:
        return options.get("kind", name)
    tower = experiment.method.get("towers", {}).get(name, {}).get("name")
    if tower not in TOWERS:
        raise UserError(
            f"what config.data.modalities.{name} is cannot be told from the recipe; name the data set, or the folder "
            "of its manifest.json, with --config.data.dir"
        )
    return TOWERS[tower][2][0]


def _modality(kind: str, numbers: int) -> Modality:
    if kind == "ecg":
        return Modality(kind, LEADS, ("mV",) * len(LEADS), 500.0)
    if kind == "labs":
        names = tuple(f"value {i}" for i in range(numbers))
        statistics = {n: (0.0, 1.0, -1.0, 1.0, 1.0) for n in names}
        percentiles = {n: tuple(np.linspace(-1, 1, 99).tolist()) for n in names}
        return Modality(kind, names, ("",) * numbers, statistics=statistics, percentiles=percentiles)
    return Modality(kind)


def _write_tokenizer(directory: Path, size: int) -> Path:
    """A data set's folder with a tokenizer of so many pieces, none of which means anything."""
    words = {"[PAD]": 0, "[UNK]": 1, "word": size - 1}
    folder = directory / tok.FOLDER
    folder.mkdir()
    tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))
    return directory
