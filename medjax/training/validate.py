"""Evaluation inside training: loss, effective rank, zero-shot and retrieval on the validation split."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import jax
import numpy as np
from jax.experimental import multihost_utils

from medjax.data import Dataset
from medjax.data.batch import Batch
from medjax.evaluation.embeddings import EmbeddingTable, embed_batches
from medjax.evaluation.retrieval import pairwise_retrieval
from medjax.evaluation.zero_shot import zero_shot
from medjax.methods import Encoded, Method, collapse
from medjax.methods.encoder import Encoder
from medjax.sharding import data_share, to_global
from medjax.training.experiment import Experiment
from medjax.training.state import TrainState
from medjax.training.step import make_pooled_step, make_validation_step


@dataclass
class Validator:
    """Scores a state on the validation split. All processes must call it together."""

    method: Method
    dataset: Dataset
    mesh: jax.sharding.Mesh
    experiment: Experiment
    _step: Callable = field(init=False)
    _pooled: Callable = field(init=False)
    _encoder: Encoder = field(init=False)

    def __post_init__(self):
        self._step = make_validation_step(self.method, self.experiment.seed, self.experiment.train.micro_batch)
        self._pooled = make_pooled_step(self.method, self.experiment.train.micro_batch)
        dataset = self.dataset
        self._encoder = Encoder.create(
            self.method, None, None, dataset.transforms, dataset.manifest, self.experiment.resolved
        )

    def __call__(self, state: TrainState, poll: Callable[[], None] = lambda: None) -> dict[str, float]:
        """`{"validation/loss": ..., "validation/macro_auroc": ..., "validation/recall@10": ...}`, without intervals.

        "validation/effective_rank" and its warning: see `medjax.methods.collapse`.
        Losses are means over batches of the training size, padded with invalid examples. poll: called before each
        batch; what it raises ends the evaluation.
        """
        losses: list[dict[str, float]] = []
        params = state.weights(self.experiment.train.weights)

        def encode(batch: Batch) -> Encoded:
            poll()
            batch = to_global(batch.select(self.method.modalities), self.mesh)
            encoded, metrics = self._step(params, state.method, batch)
            losses.append({k: float(v) for k, v in metrics.items()})
            return encoded

        scorer = self.method.scorer(params)
        table = None
        # Whole tables need every row here; with several processes the evaluation binaries do this part.
        if scorer is not None and jax.process_count() == 1:
            table = embed_batches(encode, self._batches(), self.dataset.manifest.labels)
        else:
            for batch in self._batches():
                encode(batch)
        if table is None:
            features = self._features(params, state.method, poll)
        else:
            features = {m: x[table.present[m]][: collapse.LIMIT] for m, x in table.embeddings.items()}
        out = {k: float(np.mean([x[k] for x in losses])) for k in losses[0]} | collapse.ranks(features)
        out = {f"validation/{k}": v for k, v in out.items()}
        return out if table is None else out | self._scores(params, state.method, table, scorer)

    def _batches(self):
        size = self.dataset.config.batch_size
        return self.dataset.evaluation("validation", size, *data_share(self.mesh))

    def _features(self, params, method_state, poll: Callable[[], None]) -> dict[str, np.ndarray]:
        """`{modality: float[n, E]}` of the first examples that have it, of all processes."""
        found: dict[str, list[np.ndarray]] = {}
        batches = range(-(-collapse.LIMIT // self.dataset.config.batch_size))
        for _, batch in zip(batches, self._batches(), strict=False):
            poll()
            batch = to_global(batch.select(self.method.modalities), self.mesh)
            pooled, present = jax.tree.map(_everywhere, self._pooled(params, method_state, batch))
            for m, x in pooled.items():
                found.setdefault(m, []).append(x[present[m]])
        return {m: np.concatenate(x)[: collapse.LIMIT] for m, x in found.items()}

    def _scores(self, params, method_state, table: EmbeddingTable, scorer) -> dict[str, float]:
        recalls = [r.recall[10].value for r in pairwise_retrieval(table, replicates=0)]
        out = {"validation/recall@10": float(np.mean(recalls))} if recalls else {}
        findings = self.dataset.manifest.findings
        if "text" in self.method.modalities and findings:
            prompts = replace(self._encoder, params=params, state=method_state).embed_prompts(findings)
            macro = zero_shot(table, prompts, findings, scorer, replicates=0).macro
            out |= {} if macro is None else {"validation/macro_auroc": macro.value}
        return out


def _everywhere(x: jax.Array) -> np.ndarray:
    """The whole of an array whose rows may lie in several processes."""
    return np.asarray(x if x.is_fully_addressable else multihost_utils.process_allgather(x, tiled=True))
