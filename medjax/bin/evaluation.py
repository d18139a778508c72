"""What the evaluation binaries share: which encoder, which data, where the results go."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

import medjax
from medjax.data import Batch, Dataset
from medjax.data.manifest import SPLITS
from medjax.data.privacy import licence
from medjax.errors import UserError
from medjax.evaluation.bootstrap import REPLICATES
from medjax.evaluation.embeddings import EmbeddingTable, embed_batches
from medjax.evaluation.page import Page
from medjax.methods.encoder import WEIGHTS, Encoder, chosen_weights, load_run
from medjax.storage import is_remote

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, here or at gs://.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, last, untrained, or a step number.")
_WEIGHTS = flags.DEFINE_enum(
    "weights", "", ["", *WEIGHTS], "Parameters or their moving average; default: those that the run validated with."
)
_DATA = flags.DEFINE_string("data", "", "Data set; default: the one the run was trained on.")
_SPLIT = flags.DEFINE_enum("split", "test", list(SPLITS), "Which split to evaluate on.")
_OUTPUT = flags.DEFINE_string("output", "", "Folder of results.json and report.html; default: inside the workdir.")
_BATCH = flags.DEFINE_integer("batch_size", 128, "Examples embedded at a time.")


@dataclass(frozen=True)
class Subject:
    """An encoder and the data it is evaluated on."""

    encoder: Encoder
    dataset: Dataset
    split: str
    output: Path

    def table(self, split: str | None = None, encoder: Encoder | None = None) -> EmbeddingTable:
        """The embeddings of a split, by default the one asked for, by the encoder or another of the same run."""
        batches = self.batches(split or self.split)
        return embed_batches((encoder or self.encoder).encode, batches, self.dataset.manifest.labels)

    def batches(self, split: str) -> Iterator[Batch]:
        """The preprocessed examples of a split, in order."""
        return self.dataset.evaluation(split, _BATCH.value)

    def untrained(self) -> Encoder:
        """The same encoder before training, as a control."""
        return load_run(_WORKDIR.value, "untrained", _WEIGHTS.value)

    def about(self, table: EmbeddingTable) -> dict[str, Any]:
        """What was evaluated, on whom: the head of every results.json."""
        manifest = self.dataset.manifest
        weights = chosen_weights(self.encoder.config, _WEIGHTS.value)
        rows = hashlib.sha256(np.ascontiguousarray(table.rows).tobytes() + manifest.digest().encode()).hexdigest()
        return {
            "medjax": medjax.__version__,
            "workdir": Path(_WORKDIR.value).name,
            "checkpoint": {"name": _CHECKPOINT.value, "step": self.encoder.step, "weights": weights},
            "data": {
                "name": manifest.name,
                "synthetic": manifest.synthetic,
                "licence": manifest.licence,
                "terms": list(licence.of(manifest).duties),
                "manifest_sha256": manifest.digest(),
                "split": self.split,
                "examples": len(table),
                "patients": len(np.unique(table.patients)),
                "example_list_sha256": rows,
                "notes": list(manifest.notes),
            },
            "intervals": "95 %, bootstrap over "
            + ("patients" if manifest.patients_known else "examples, since patients are not known")
            + f", {REPLICATES} replicates",
        }

    def page(self, title: str, about: dict[str, Any]) -> Page:
        """A page that opens with what was evaluated, on whom, and how sure the numbers are."""
        data = about["data"]
        who = f"{data['examples']} studies of {data['patients']} patients, {data['split']} split of {data['name']}"
        who += f" (licence: {licence.of(self.dataset.manifest)})"
        page = Page(
            title, f"{about['workdir']}, step {about['checkpoint']['step']}; {who}; intervals: {about['intervals']}"
        )
        for note in data["notes"]:
            page.note(note)
        return page

    def save(self, results: dict[str, Any], page: Page) -> None:
        """Writes results.json and report.html, and says where."""
        self.output.mkdir(parents=True, exist_ok=True)
        (self.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        page.save(self.output / "report.html")
        print(f"results: {self.output / 'results.json'}\nreport: {self.output / 'report.html'}")


def load_subject(name: str) -> Subject:
    """Loads what the flags name; `name` is the evaluation's folder in the workdir.

    Raises:
      UserError: a flag is missing, or run or data cannot be used.
    """
    if not _WORKDIR.value:
        raise UserError("pass --workdir, the folder of a run")
    if is_remote(_WORKDIR.value) and not _OUTPUT.value:
        raise UserError(f"pass --output=DIR, a folder of this machine: results are not written to {_WORKDIR.value}")
    encoder = load_run(_WORKDIR.value, _CHECKPOINT.value, _WEIGHTS.value)
    dataset = encoder.dataset(_DATA.value)
    output = Path(_OUTPUT.value) if _OUTPUT.value else Path(_WORKDIR.value) / "evaluation" / name
    return Subject(encoder, dataset, _SPLIT.value, output)
