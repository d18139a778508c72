"""An encoder of a run's data with other towers."""

import dataclasses

import jax
import numpy as np

from medjax.data.batch import Batch, Items
from medjax.methods import make_method
from medjax.methods.encoder import Encoder


def changed_encoder(run: Encoder, towers, data=None, **method) -> Encoder:
    """With random weights. data: `{modality: preprocessing options}` that differ. method: other options of it."""
    data = data or {}
    transforms = {m: _with(run.transforms[m], **data.get(m, {})) for m in towers}
    method = {**run.config["method"], "towers": towers, "objectives": {"info_nce": {}}, **method}
    given = run.config["data"]
    read = {m: {**given["modalities"][m], **data.get(m, {})} for m in towers}
    config = {**run.config, "data": {**given, "modalities": read}, "method": method}
    made = make_method(method, {m: t.spec() for m, t in transforms.items()})
    values = {m: jax.tree.map(lambda x: np.asarray(x)[None, None], t.empty()) for m, t in transforms.items()}
    items = {m: Items(value, np.ones((1, 1), bool)) for m, value in values.items()}
    batch = Batch(items, {}, np.zeros(1, np.float32), np.ones(1, bool), {}, np.zeros(1, np.int32))
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(made.init, jax.random.key(0), batch)
    params, state = jax.tree.map(lambda x: (0.2 * rng.normal(size=x.shape)).astype(x.dtype), shapes)
    state = jax.tree.map(np.abs, state)  # variances
    return Encoder.create(made, params, state, transforms, run.manifest, config, 4)


def _with(transform, **options):
    return dataclasses.replace(transform, config=dataclasses.replace(transform.config, **options))
