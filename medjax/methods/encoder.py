"""A method with its parameters and preprocessing as an embedding function; what `medjax.load` returns."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax.checkpoints import CheckpointStore
from medjax.checkpoints.mirror import place, readable
from medjax.config import build, merge
from medjax.data import DataConfig, Dataset
from medjax.data import manifest as manifests
from medjax.data.batch import Batch, Items
from medjax.data.examples import stack
from medjax.data.manifest import Finding, Manifest
from medjax.data.transforms import Transform, make_transforms
from medjax.errors import UserError, check_choice, suggest
from medjax.methods import make_method
from medjax.methods.base import Encoded, Method, Scorer

CONFIG = "config.json"
WEIGHTS = ("raw", "ema")
# Checkpoint name -> folder of a run. "untrained" holds the random parameters before any warm start, as a control.
FOLDERS = {"best": "best", "last": "checkpoints", "untrained": "untrained"}


@dataclass(frozen=True)
class Encoder:
    """Parameters and the method's state with everything needed to embed raw inputs.

    config: of the run, as plain dicts. manifest: of the data it was trained on. step: of the checkpoint, if it has
    one. examples: how many it was trained on, repetitions counted.
    """

    method: Method
    params: Any
    state: Any
    transforms: Mapping[str, Transform]
    manifest: Manifest
    config: Mapping[str, Any]
    step: int | None
    examples: int
    _encode: Callable

    @classmethod
    def create(
        cls,
        method: Method,
        params: Any,
        state: Any,
        transforms,
        manifest: Manifest,
        config,
        step: int | None = None,
        examples: int = 0,
    ) -> "Encoder":
        """`dataclasses.replace(encoder, params=..., state=...)` shares what this one compiles."""
        encode = jax.jit(lambda params, state, batch: method.encode(params, state, batch.only_valid(), None, False))
        return cls(method, params, state, transforms, manifest, config, step, examples, encode)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those it can embed."""
        return self.method.modalities

    def dataset(self, directory: str | Path | None = None) -> Dataset:
        """A data set, by default that of the run, read with the encoder's own preprocessing.

        Raises:
          UserError: there is none, or its modalities differ from those of the training data.
        """
        data = {k: v for k, v in self.config["data"].items() if k in DataConfig.__dataclass_fields__}
        # What only training needs is left behind.
        data |= {"cache": False, "workers": 0, "balance": "", "balance_weights": {}, "buckets": {}}
        if directory:
            data |= {"dir": str(directory), "mixture": {}}
        if not data.get("dir") and not data.get("mixture"):
            raise UserError("an export does not say where its data lie; name a data set, with --data=DIR in programs")
        config = build(DataConfig, data, "config.data")
        dataset = Dataset.open(config, {m: self.transforms[m] for m in self.modalities})
        for m in self.modalities:
            here, there = self.manifest.modality(m), dataset.manifest.modality(m)
            if (here.kind, here.names, here.rate) != (there.kind, there.names, there.rate):
                where = directory or "the run's data"
                raise UserError(f"modality {m!r} of {where} differs in kind, names or rate from the training data")
        return dataset

    def scorer(self) -> Scorer | None:
        """How well a candidate completes other modalities; None where the method has no such notion."""
        return self.method.scorer(self.params)

    def encode(self, batch: Batch) -> Encoded:
        """The embeddings of a preprocessed batch; modalities without an encoder are left out."""
        return self._encode(self.params, self.state, batch.select(self.modalities))

    def embed(self, inputs: Mapping[str, Any], batch_size: int = 64) -> dict[str, np.ndarray]:
        """Embeds raw inputs.

        Args:
          inputs: `{modality: one input or a list of them}`. Images: paths, Pillow images or uint8 arrays. ECGs:
            paths of WFDB records or arrays [C, T] in mV with the leads and rate of the training data. Lab values:
            `{name: number}` or arrays. Text: strings. Volumes: paths of NIfTI or NRRD files or of DICOM folders, or
            `{"values": [D, H, W], "spacing": mm}` on the canonical axes.

        Returns:
          `{modality: float32[n, E]}`, normalised where the method compares by cosine; `[E]` for a single input.

        Raises:
          UserError: an unknown modality, or an input that cannot be used.
        """
        out = {}
        for modality, given in inputs.items():
            if modality not in self.modalities:
                raise UserError(f"this encoder has no modality {modality!r}; {suggest(modality, self.modalities)}")
            single = not isinstance(given, list | tuple)
            values = [given] if single else list(given)
            if not values:
                raise UserError(f"no inputs of modality {modality!r}; give at least one")
            rows = [self._rows(modality, values[i : i + batch_size]) for i in range(0, len(values), batch_size)]
            out[modality] = np.concatenate(rows)[0] if single else np.concatenate(rows)
        return out

    def _rows(self, modality: str, values: Sequence[Any]) -> np.ndarray:
        transform = self.transforms[modality]
        arrays = [transform.finish(transform.prepare(transform.raw(v)), None) for v in values]
        padded = 1 << (len(arrays) - 1).bit_length()  # powers of two, so that few shapes are compiled
        batch = _batch_of(modality, arrays + [transform.empty()] * (padded - len(arrays)))
        return np.asarray(self.encode(batch).pooled[modality])[: len(values)]

    def embed_prompts(self, findings: Mapping[str, Finding]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """`{finding: (positive float32[p, E], negative float32[q, E])}`, the embedded prompts.

        Raises:
          UserError: the encoder reads no text.
        """
        texts = sorted({p for f in findings.values() for p in (*f.positive, *f.negative)})
        rows = dict(zip(texts, self.embed({"text": texts})["text"], strict=True))
        return {
            k: (np.stack([rows[p] for p in f.positive]), np.stack([rows[p] for p in f.negative]))
            for k, f in findings.items()
        }


def _batch_of(modality: str, arrays: Sequence[Any]) -> Batch:
    """A batch of one modality, one item an example, and nothing known beside."""
    n = len(arrays)
    value = jax.tree.map(lambda x: x[:, None], stack(list(arrays)))
    items = {modality: Items(value, np.ones((n, 1), bool))}
    return Batch(items, {}, np.zeros(n, np.float32), np.ones(n, bool), {}, np.arange(n, dtype=np.int32))


def load_run(workdir: str | Path, checkpoint: str = "best", weights: str = "") -> Encoder:
    """The encoder of a run.

    checkpoint: "best" (by the run's validation metric), "last", a step number, or "untrained", the random parameters
    before training, as a control. weights: "raw", or "ema" for their moving average; by default those that the run
    validated with.

    Raises:
      UserError: no run there, no such checkpoint, a damaged one, or one without a moving average.
    """
    workdir = readable(workdir)
    if not (workdir / CONFIG).is_file():
        raise UserError(f"no run at {workdir}: {CONFIG} is missing; give the --workdir of medjax.bin.train")
    config = json.loads((workdir / CONFIG).read_text())
    manifest = manifests.read(workdir)
    transforms = make_transforms(config["data"]["modalities"], manifest, workdir)
    method = make_method(config["method"], {m: t.spec() for m, t in transforms.items()})
    store, step = _find(workdir, checkpoint)
    params, meta = store.restore_params(step)
    params = jax.tree.map(lambda x: x.astype(np.float32) if x.dtype == jnp.bfloat16 else x, params)
    if chosen_weights(config, weights) == "ema":
        average = store.restore_rest(step, "ema")
        if not average:
            raise UserError(f"the run at {workdir} keeps no moving average (config.train.ema_decay); use weights 'raw'")
        params = merge(params, average)
    state = store.restore_rest(step, "method")
    examples = meta.get("examples_seen", 0)  # the untrained checkpoint has seen none
    return Encoder.create(method, params, state, transforms, manifest, config, step, examples)


def chosen_weights(config: Mapping[str, Any], weights: str = "") -> str:
    """ "raw" or "ema": what was asked for, or what the run of this configuration validated with.

    Raises:
      UserError: neither of them.
    """
    weights = weights or config.get("train", {}).get("weights", WEIGHTS[0])
    check_choice("weights", weights, WEIGHTS)
    return weights


def _find(workdir: Path, checkpoint: str) -> tuple[CheckpointStore, int]:
    if checkpoint not in FOLDERS and not checkpoint.isdigit():
        raise UserError(f"unknown checkpoint {checkpoint!r}; valid: {', '.join(FOLDERS)}, or a step number")
    folder = workdir / FOLDERS.get(checkpoint, FOLDERS["last"])
    if not place(folder).is_dir():
        raise UserError(f"the run at {workdir} has no {checkpoint} checkpoint yet")
    store = CheckpointStore(folder, read_only=True)
    step = int(checkpoint) if checkpoint.isdigit() else store.latest_valid_step()
    if step is None:
        raise UserError(f"the run at {workdir} has no sound {checkpoint} checkpoint")
    return store, step
