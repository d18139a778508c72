"""What `medjax.bin.explain` looks at: an encoder laid open, what it is asked, the studies of a split with boxes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medjax.bin.evaluation import EncoderSubject
from medjax.data.records import decode
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.explain.explainer import Explainer, Item
from medjax.methods.encoder import Encoder
from medjax.models.inspection import plain

FINDING, POSITIVE = "finding", "positive"


def explainer_of(encoder: Encoder, smooth: float, seed: int, batch_size: int) -> Explainer:
    """An encoder laid open: its towers plain, its method's own way from them to embeddings."""
    modules = {m: plain(x) for m, x in encoder.method.towers.modules.items()}
    method = replace(encoder.method, towers=replace(encoder.method.towers, modules=modules))

    def encode(params, batch):
        return method.encode(*params, batch.only_valid(), None, False)

    params = encoder.params, encoder.state
    return Explainer(encode, modules, encoder.transforms, params, smooth, seed, batch_size)


@dataclass
class Studies:
    """A split of a subject's data set. boxes: `{finding: {row: float32[k, 4]}}`, of the first picture."""

    subject: EncoderSubject
    split: str

    def __post_init__(self):
        source, self.boxes = self.subject.dataset.source(self.split), {}
        for row in range(len(source)):
            for key, value in decode(source[row]).items():
                if key.startswith("boxes/") and len(value):
                    self.boxes.setdefault(key.removeprefix("boxes/"), {})[row] = value

    @property
    def table(self) -> EmbeddingTable:
        """The split's embeddings."""
        return self.subject.table(self.split)

    def items(self, modality: str, rows: Sequence[int]) -> list[Item]:
        """The first item of a modality of each of these rows, all of which have it."""
        transform, out = self.subject.dataset.transforms[modality], []
        for row, found in zip(rows, self.subject.dataset.raw_items(self.split, rows), strict=True):
            raw = found[modality][0]
            out.append(Item(int(row), transform.split(raw)[0] if transform.kind == "text" else raw))
        return out

    def marked(self, finding: str, modality: str) -> np.ndarray:
        """Positions in the table of the studies with boxes of a finding and this modality."""
        boxes, table = self.boxes.get(finding, {}), self.table
        return np.flatnonzero(np.isin(table.rows, list(boxes)) & table.present[modality])

    def positive(self, finding: str, modality: str) -> np.ndarray:
        """Positions of the studies known to have a finding that have this modality, those with boxes first."""
        table = self.table
        there = np.flatnonzero((table.labels[:, table.label_names.index(finding)] == 1) & table.present[modality])
        boxed = np.isin(table.rows[there], list(self.boxes.get(finding, {})))
        return there[np.argsort(~boxed, kind="stable")]


@dataclass
class Asked:
    """An encoder that is asked for explanations. prompts: `{finding: (positive float32[p, E], negative float32[q, E])}`
    as it embeds them. against: what its embeddings are compared with: "finding" for the mean of a finding's positive
    prompts less that of its negative ones, "positive" for the positive ones alone, or a modality for the study's own
    embedding of it.
    """

    subject: EncoderSubject
    explainer: Explainer
    prompts: Mapping[str, tuple[np.ndarray, np.ndarray]]
    against: str

    @property
    def by_prompt(self) -> bool:
        """Whether it is asked about prompts, rather than another modality."""
        return self.against in (FINDING, POSITIVE)

    def target(self, finding: str, split: str, at: np.ndarray) -> np.ndarray:
        """float32[n, E]: what the studies at these positions of a split's table are compared with."""
        if not self.by_prompt:
            return self.subject.table(split).embeddings[self.against][at]
        positive, negative = self.prompts[finding]
        direction = positive.mean(0) - (negative.mean(0) if self.against == FINDING else 0)
        return np.broadcast_to(direction.astype(np.float32), (len(at), len(direction)))
