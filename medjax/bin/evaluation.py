"""What the evaluation binaries share: what is evaluated, on which data, where the results go."""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import medjax
from medjax.data import Batch, Dataset
from medjax.data import manifest as manifests
from medjax.data.manifest import SPLITS, Finding
from medjax.data.privacy import licence
from medjax.errors import UserError
from medjax.evaluation import store
from medjax.evaluation.bootstrap import REPLICATES
from medjax.evaluation.embeddings import EmbeddingTable, embed_batches
from medjax.evaluation.joint import mean
from medjax.evaluation.openings import opened
from medjax.evaluation.page import Page
from medjax.evaluation.schema import check_results
from medjax.methods.base import Scorer
from medjax.methods.encoder import WEIGHTS, Encoder, chosen_weights, load_run
from medjax.methods.exported import load_export
from medjax.methods.terms import Terms
from medjax.storage import is_remote

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, here or at gs://.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "Of the run: best, last, untrained, or a step number.")
_WEIGHTS = flags.DEFINE_enum(
    "weights", "", ["", *WEIGHTS], "Parameters or their moving average; default: those that the run validated with."
)
_EXPORT = flags.DEFINE_string("export", None, "In place of --workdir: a folder written by medjax.bin.export.")
_EMBEDDINGS = flags.DEFINE_string(
    "embeddings", None, "In place of --workdir: a folder written by medjax.bin.embed, or an NPZ file of any encoder's."
)
_DATA = flags.DEFINE_list("data", [], "Data sets, one where the program takes one; default: that of the run.")
_SPLIT = flags.DEFINE_enum("split", "test", list(SPLITS), "Which split to evaluate on.")
_OUTPUT = flags.DEFINE_string("output", "", "Folder of results.json and report.html; default: inside the workdir.")
_BATCH = flags.DEFINE_integer("batch_size", 128, "Examples embedded at a time.")


class Subject:
    """What is evaluated: an encoder with a data set, or embeddings that somebody made before.

    kind: "run", "export" or "embeddings". name: of its folder. split: the one asked for. data: what the head of every
    results.json says of the data. labels, findings, attributes: of the data. modalities: that are embedded. encoder,
    dataset: None where there are embeddings alone.
    """

    kind: str
    name: str
    split: str
    output: Path
    data: Mapping[str, Any]
    checkpoint: Mapping[str, Any] | None
    labels: tuple[str, ...]
    findings: Mapping[str, Finding]
    attributes: Mapping[str, tuple[str, ...]]
    modalities: tuple[str, ...]
    encoder: Encoder | None = None
    dataset: Dataset | None = None

    def table(self, split: str | None = None) -> EmbeddingTable:
        """The embeddings of a split, by default the one asked for."""
        raise NotImplementedError

    def untrained(self) -> "Subject | None":
        """The same before training, as a control; None where there is no encoder."""
        raise NotImplementedError

    def scorer(self) -> Scorer | None:
        """See `Method.scorer`; None where the subject compares no modalities."""
        raise NotImplementedError

    def prompts(self, findings: Mapping[str, Finding]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """`{finding: (positive float32[p, E], negative float32[q, E])}`, embedded.

        Raises:
          UserError: the subject reads no text, or its embeddings came without these prompts.
        """
        raise NotImplementedError

    def about(self, table: EmbeddingTable) -> dict[str, Any]:
        """What was evaluated, on whom: the head of every results.json."""
        digest = self.data["manifest_sha256"] or ""
        rows = hashlib.sha256(np.ascontiguousarray(table.rows).tobytes() + digest.encode()).hexdigest()
        times = opened(digest or rows, self.split, Path(sys.argv[0]).stem)
        if times is not None and self.split == "test":
            print(f"the test split of {self.data['name']} has been scored {times} times on this account")
        known = self.data["patients_known"]
        return {
            "medjax": medjax.__version__,
            "subject": {"kind": self.kind, "name": self.name},
            "checkpoint": self.checkpoint,
            "data": {
                **self.data,
                "split": self.split,
                "examples": len(table),
                "patients": len(np.unique(table.patients)),
                "example_list_sha256": rows,
                "times_opened": times,
            },
            "intervals": f"95 %, bootstrap over {'patients' if known else 'examples, since patients are not known'}, "
            f"{REPLICATES} replicates",
        }

    def page(self, title: str, about: dict[str, Any]) -> Page:
        """A page that opens with what was evaluated, on whom, and how sure the numbers are."""
        data, checkpoint = about["data"], about["checkpoint"]
        who = f"{data['examples']} studies of {data['patients']} patients, {data['split']} split of {data['name']}"
        duties = ", ".join(data["terms"])
        who += f" (licence: {data['licence']}{': ' + duties if duties else ''})"
        step = f", step {checkpoint['step']}" if checkpoint else ""
        page = Page(title, f"{self.name}{step}; {who}; intervals: {about['intervals']}")
        for note in data["notes"]:
            page.note(note)
        return page

    def save(self, results: dict[str, Any], page: Page) -> None:
        """Writes results.json and report.html, and says where."""
        check_results(results)
        self.output.mkdir(parents=True, exist_ok=True)
        (self.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        page.save(self.output / "report.html")
        print(f"results: {self.output / 'results.json'}\nreport: {self.output / 'report.html'}")


class EncoderSubject(Subject):
    """An encoder of a run or an export, and a data set that is embedded when it is asked for."""

    encoder: Encoder
    dataset: Dataset

    def __init__(self, kind: str, name: str, encoder: Encoder, dataset: Dataset, output: Path):
        self.kind, self.name, self.split, self.output = kind, name, _SPLIT.value, output
        self.encoder, self.dataset, manifest = encoder, dataset, dataset.manifest
        self.labels, self.findings, self.attributes = manifest.labels, manifest.findings, manifest.attributes
        self.modalities = encoder.modalities
        self.data = describe(manifest)
        weights = chosen_weights(encoder.config, _WEIGHTS.value) if kind == "run" else "raw"
        name = _CHECKPOINT.value if kind == "run" else "export"
        self.checkpoint = {"name": name, "step": encoder.step, "weights": weights}
        self._tables: dict[str, EmbeddingTable] = {}

    def table(self, split: str | None = None) -> EmbeddingTable:
        """See `Subject`; embedded once."""
        split = split or self.split
        if split not in self._tables:
            attributes = self.dataset.attributes(split)
            self._tables[split] = embed_batches(self.encoder.encode, self.batches(split), self.labels, attributes)
        return self._tables[split]

    def batches(self, split: str) -> Iterator[Batch]:
        """The preprocessed examples of a split, in order."""
        return self.dataset.evaluation(split, _BATCH.value)

    def untrained(self) -> "EncoderSubject":
        """The run's own random parameters; for an export, which does not hold them, fresh ones."""
        if self.kind == "run":
            encoder = load_run(_WORKDIR.value, "untrained", _WEIGHTS.value)
        else:
            first = next(self.dataset.evaluation("train" if "train" in self.dataset.manifest.splits else self.split, 8))
            params, state = self.encoder.method.init(jax.random.key(0), first.select(self.modalities))
            encoder = replace(self.encoder, params=params, state=state, step=0, examples=0)
        return EncoderSubject(self.kind, f"{self.name}, untrained", encoder, self.dataset, self.output)

    def scorer(self) -> Scorer | None:
        """See `Subject`."""
        return self.encoder.scorer()

    def prompts(self, findings: Mapping[str, Finding]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """See `Subject`."""
        return self.encoder.embed_prompts(findings)


class StoredSubject(Subject):
    """Tables that were written before, by `medjax.bin.embed` or by another encoder's owner."""

    def __init__(self, place: Path, output: Path):
        self.kind, self.name, self.split, self.output = "embeddings", place.name, _SPLIT.value, output
        self._place = place
        if store.is_plain(place):
            self._index, found = None, store.read_plain(place, self.split)
            data = {**describe(None, place.stem), "patients_known": store.names_patients(place, self.split)}
            about = {"data": data, "checkpoint": None}
            labels, self.modalities = found.label_names, tuple(found.embeddings)
            self.findings, self.attributes = {}, dict.fromkeys(found.attributes, ())
            self._tables = {self.split: found}
        else:
            index = self._index = store.read_index(place)
            about, labels, self.modalities = index.about, index.labels, tuple(index.modalities)
            self.findings, self.attributes, self._tables = index.findings, index.attributes, {}
        self.data, self.checkpoint, self.labels = about["data"], about["checkpoint"], tuple(labels)

    def table(self, split: str | None = None) -> EmbeddingTable:
        """See `Subject`."""
        split = split or self.split
        if split not in self._tables:
            if self._index is None:
                self._tables[split] = store.read_plain(self._place, split, self._tables[self.split])
            else:
                self._tables[split] = store.read(self._place, split)
        return self._tables[split]

    def untrained(self) -> None:
        """There is nothing to take the training from."""

    def scorer(self) -> Scorer | None:
        """That of the objectives the encoder was trained with, if the folder names them; else the mean of the inner
        products."""
        if self._index is None or not self._index.objectives:
            return mean if len(self.modalities) > 1 else None
        terms = Terms.create(self._index.objectives, self.modalities)
        scales = {k: {"log_scale": jnp.float32(v)} for k, v in self._index.log_scales.items()}
        return terms.scorer({"objectives": scales})

    def prompts(self, findings: Mapping[str, Finding]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """See `Subject`."""
        return store.read_prompts(self._place, tuple(findings))


def describe(manifest: manifests.Manifest | None, name: str = "") -> dict[str, Any]:
    """What a result says of its data; of a table that came without a data set, that little is known."""
    if manifest is None:
        return {
            **{"name": name, "synthetic": False, "licence": "unknown", "terms": [], "manifest_sha256": None},
            **{"notes": [], "patients_known": False, "sensitive": True, "texts_from_labels": False},
        }
    return {
        "name": manifest.name,
        "synthetic": manifest.synthetic,
        "licence": manifest.licence,
        "terms": list(licence.of(manifest).duties),
        "manifest_sha256": manifest.digest(),
        "notes": list(manifest.notes),
        "patients_known": manifest.patients_known,
        "sensitive": manifest.sensitive,
        "texts_from_labels": manifest.texts_from_labels,
    }


def load_subject(name: str) -> Subject:
    """Loads what the flags name; `name` is the evaluation's folder in the workdir.

    Raises:
      UserError: a flag is missing, or subject or data cannot be used.
    """
    found = load_subjects(name)
    if len(found) > 1:
        raise UserError(f"--data names {len(found)} data sets, and this program takes one")
    return found[0]


def load_subjects(name: str) -> list[Subject]:
    """The same subject on each of the data sets that --data names; of several, each has an output folder of its own."""
    given = {"workdir": _WORKDIR.value, "export": _EXPORT.value, "embeddings": _EMBEDDINGS.value}
    given = {k: v for k, v in given.items() if v}
    if len(given) != 1:
        raise UserError(
            "pass --workdir, the folder of a run, or --export, or --embeddings" + ("; one of them" if given else "")
        )
    ((kind, place),) = given.items()
    if is_remote(place) and not _OUTPUT.value:
        raise UserError(f"pass --output=DIR, a folder of this machine: results are not written to {place}")
    return open_subjects(kind, place, name)


def open_subjects(kind: str, place: str, name: str) -> list[Subject]:
    """The subjects of one place. kind: "workdir", "export" or "embeddings"."""
    output = Path(_OUTPUT.value) if _OUTPUT.value else _default_output(kind, place, name)
    if kind == "embeddings":
        if _DATA.value:
            raise UserError("--embeddings are of one data set already; leave --data out")
        return [StoredSubject(Path(place), output)]
    encoder = load_export(place) if kind == "export" else load_run(place, _CHECKPOINT.value, _WEIGHTS.value)
    kind, several = {"workdir": "run"}.get(kind, kind), len(_DATA.value) > 1
    subjects = []
    for directory in _DATA.value or [""]:
        here = output / Path(directory).name if several else output
        subjects.append(EncoderSubject(kind, Path(place).name, encoder, encoder.dataset(directory), here))
    return subjects


def _default_output(kind: str, place: str, name: str) -> Path:
    if kind == "workdir":
        return Path(place) / "evaluation" / name
    if Path(place).is_dir():
        return Path(place) / "evaluation" / name
    return Path(place).with_suffix("") / "evaluation" / name
