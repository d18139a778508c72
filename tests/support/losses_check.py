"""One check for every objective: value and gradient against a float64 reference, on one device and round a ring."""

import jax
import jax.numpy as jnp
import numpy as np
from losses_reference import assert_close

from medjax import losses
from medjax.sharding import MeshConfig, make_mesh

AXES = ("replica", "fsdp")


def assert_matches(
    name: str,
    options: dict,
    reference,
    embeddings,
    *,
    scalars: dict,
    key=None,
    tolerance: float = 2e-5,
    places: tuple[str, ...] = ("dense", "ring"),
    learnt=None,
    **batch,
) -> None:
    """`losses.get(name, **options)` equals `reference` in value and in the gradient of all it can be pulled to.

    reference: `f(embeddings, scalars, learnt) -> float`, in float64. embeddings: a pytree of arrays whose first axis
    is the row, a multiple of eight; float leaves are differentiated. scalars:
    `{"logit_scale": ..., "logit_bias": ...}`
    learnt: further float arrays, passed as keywords. batch: `present`, `ids`, `targets`. places: "dense" is one
    device, "ring" eight with tiles of an odd size.
    """
    learnt = learnt or {}
    wanted = reference(*_double((embeddings, scalars, learnt)))
    gradient = numeric_gradient(lambda tree: reference(*tree), (embeddings, scalars, learnt))
    for impl in places:
        value, actual = _run(name, options, impl, embeddings, scalars, learnt, key, batch)
        assert np.isfinite(value), impl
        assert_close(value, wanted, tolerance)
        scale = max(np.abs(g).max() for g in jax.tree.leaves(gradient))
        for a, g in zip(_floats(actual), jax.tree.leaves(gradient), strict=True):
            np.testing.assert_allclose(np.asarray(a, np.float64), g, rtol=5 * tolerance, atol=5 * tolerance * scale)


def _run(name, options, impl, embeddings, scalars, learnt, key, batch):
    objective = losses.get(name, impl=impl, block=3, **options)
    place = {"batch_axes": AXES} if impl == "ring" else {}
    embeddings, scalars, learnt, batch = jax.tree.map(_single, (embeddings, scalars, learnt, batch))

    def call(tree, batch):
        embeddings, scalars, learnt = tree
        return objective(embeddings, **scalars, **learnt, key=key, **batch, **place).mean()

    function = jax.jit(jax.value_and_grad(call, allow_int=True))
    if impl == "dense":
        return function((embeddings, scalars, learnt), batch)
    mesh = make_mesh(MeshConfig(replica=4, fsdp=2))
    with jax.set_mesh(mesh):
        rows = jax.NamedSharding(mesh, jax.P(AXES))
        return function((jax.device_put(embeddings, rows), scalars, learnt), jax.device_put(batch, rows))


def numeric_gradient(function, tree, step: float = 1e-5) -> list[np.ndarray]:
    """Central differences of a float64 function of a pytree, for its float leaves in their order."""
    leaves, structure = jax.tree.flatten(_double(tree))
    out = []
    for at, leaf in enumerate(leaves):
        if not _is_float(leaf):
            continue
        gradient = np.zeros(np.shape(leaf))
        for index in np.ndindex(gradient.shape):
            values = []
            for sign in (1, -1):
                moved = np.array(leaf, np.float64)
                moved[index] += sign * step
                values.append(function(jax.tree.unflatten(structure, [*leaves[:at], moved, *leaves[at + 1 :]])))
            gradient[index] = (values[0] - values[1]) / (2 * step)
        out.append(gradient)
    return out


def _is_float(x) -> bool:
    return isinstance(x, float) or jnp.issubdtype(getattr(x, "dtype", np.int32), jnp.floating)


def _floats(tree) -> list:
    return [x for x in jax.tree.leaves(tree) if x.dtype != jax.dtypes.float0]


def _single(x):
    return jnp.asarray(x, jnp.float32) if _is_float(x) else jnp.asarray(x)


def _double(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64) if _is_float(x) else np.asarray(x), tree)
