"""A server on a tiny index, whose encoder gives every input a vector that a test can compute as well."""

import contextlib
import threading
from types import SimpleNamespace

import numpy as np

from medjax.bin.serve_guard import Guard
from medjax.bin.serve_http import Server
from medjax.bin.serve_index import Service
from medjax.data.manifest import Modality
from medjax.evaluation import store
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.index_search import join

NASTY = "<img src=x onerror=\"document.title='broken'\">"
LABELS = ("effusion", NASTY)
WIDTH = 6
SCHEMAS = {
    "image": Modality("image"),
    "ecg": Modality("ecg", ("I", "II"), ("mV", "mV"), 100.0),
    "text": Modality("text"),
}
TABLES_SEED = 3


def vector(value) -> np.ndarray:
    """float32[WIDTH]: of any raw input, the same for the same."""
    content = value.tobytes() if isinstance(value, np.ndarray) else value
    seed = np.frombuffer(content.encode() if isinstance(content, str) else content, np.uint8)
    return np.random.default_rng(seed).normal(size=WIDTH).astype(np.float32)


class FakeEncoder:
    """What `Service` asks of an encoder."""

    modalities = tuple(SCHEMAS)
    manifest = SimpleNamespace(modality=SCHEMAS.__getitem__)

    def embed(self, inputs):
        """`{modality: float32[E]}`."""
        return {m: vector(x) for m, x in inputs.items()}

    def scorer(self):
        """The product of the query's parts with the candidate."""
        return lambda queries, rows, target, present: (
            np.prod([np.asarray(q) for q in queries.values()], axis=0) @ rows.T
        )


def tables() -> dict[str, EmbeddingTable]:
    """A train split of 30 studies and a test split of 20."""
    rng, out = np.random.default_rng(TABLES_SEED), {}
    for split, n in (("train", 30), ("test", 20)):
        out[split] = EmbeddingTable(
            {m: rng.normal(size=(n, WIDTH)).astype(np.float32) for m in SCHEMAS},
            {m: rng.random(n) < 0.8 if m == "ecg" else np.ones(n, bool) for m in SCHEMAS},
            *(np.arange(n) // 2, np.arange(n)),
            rng.choice([0.0, 1.0, np.nan], (n, 2)).astype(np.float32),
            LABELS,
            np.arange(n),
            rng.integers(1, 2**32, (n, 2), dtype=np.uint32),
            {"sex": rng.integers(0, 2, n).astype(np.float32)},
        )
    return out


def make_service(encoder=True, sensitive=False) -> Service:
    """The service of these tables, without a data set."""
    data = {"name": NASTY, "licence": "CC0-1.0", "terms": [], "notes": [NASTY], "sensitive": sensitive}
    index = store.Index(
        about={"data": data, "checkpoint": {"step": 3}, "subject": {"name": "tiny"}},
        kind="npz",
        modalities=dict.fromkeys(SCHEMAS, WIDTH),
        labels=LABELS,
        splits={},
        attributes={"sex": ("female", "male")},
    )
    return Service(index, *join(tables()), FakeEncoder() if encoder else None, None, (NASTY,))


@contextlib.contextmanager
def serving(service: Service, token: str = "", max_upload: int = 2**20):
    """A running server on a free port of this machine."""
    server = Server(("127.0.0.1", 0), service, Guard("127.0.0.1", token), max_upload)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
