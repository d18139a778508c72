"""One loss, however it is computed: dense, gathered or round a ring, on one device or on eight."""

import functools

import jax
import jax.numpy as jnp
import pytest
from losses_reference import assert_close, id_rows, some_present, unit_rows

from medjax import losses
from medjax.sharding import MeshConfig, make_mesh

OBJECTIVES = {"info_nce": {}, "gram": {"anchor": "b"}, "symile": {}}
ROWS = 24
TOLERANCE = 1e-5  # the same sums of float32 in another order
KEY = jax.random.key(5)
AXES = ("replica", "fsdp")


def batch(rng):
    """Embeddings, masks, ids with repeats: everything that travels with a row."""
    z = {m: jnp.asarray(x) for m, x in unit_rows(rng, ROWS, 8, "abc").items()}
    present = {m: jnp.asarray(x) for m, x in some_present(rng, ROWS, "abc").items()}
    ids = {"patient": id_rows(rng.integers(0, 6, ROWS)), "text": id_rows(rng.integers(0, 9, ROWS))}
    ids["group"] = id_rows(rng.integers(0, 12, ROWS))
    return z, present, jax.tree.map(jnp.asarray, ids)


def options_of(name):
    return {
        "same_text": "mask",
        "same_group": "mask",
        "same_patient": "mask" if name == "symile" else "positive",
        **OBJECTIVES[name],
    }


def value_and_gradient(objective, **place):
    def call(z, scale, present, ids):
        return objective(z, logit_scale=scale, present=present, ids=ids, key=KEY, **place).mean()

    return jax.jit(jax.value_and_grad(call, argnums=(0, 1)))


@functools.cache
def compiled_dense(name):
    return value_and_gradient(losses.get(name, impl="dense", **options_of(name)))


def dense(name, z, present, ids):
    return compiled_dense(name)(z, jnp.float32(14.0), present, ids)


def check(actual, expected):
    (value, (d_z, d_scale)), (value_0, (d_z_0, d_scale_0)) = actual, expected
    assert_close(value, value_0, TOLERANCE)
    assert_close(d_z, d_z_0, TOLERANCE)
    assert_close(d_scale, d_scale_0, 1e-4)  # a small difference of log-sum-exp and answer


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("block", [7, pytest.param(12, marks=pytest.mark.slow)])
def test_blocks_of_any_size_equal_the_dense_loss(rng, name, block):
    z, present, ids = batch(rng)
    objective = losses.get(name, impl="gather", block=block, **options_of(name))
    check(value_and_gradient(objective)(z, jnp.float32(14.0), present, ids), dense(name, z, present, ids))


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("impl", ["dense", pytest.param("gather", marks=pytest.mark.slow), "ring"])
def test_sharded_arrays_equal_one_device(rng, name, impl):
    z, present, ids = batch(rng)
    expected = dense(name, z, present, ids)
    mesh = make_mesh(MeshConfig(replica=4, fsdp=2))
    objective = losses.get(name, impl=impl, block=2, **options_of(name))
    with jax.set_mesh(mesh):
        placed = jax.device_put((z, present, ids), jax.NamedSharding(mesh, jax.P(AXES)))
        call = value_and_gradient(objective, batch_axes=AXES)
        actual = call(placed[0], jnp.float32(14.0), *placed[1:])
    check(actual, expected)


@pytest.mark.parametrize(
    ("name", "impl"), [("info_nce", "ring"), ("info_nce", "gather"), ("gram", "dense"), ("symile", "ring")]
)
def test_inside_the_callers_shard_map_equals_one_device(rng, name, impl):
    z, present, ids = batch(rng)
    expected = dense(name, z, present, ids)
    objective = losses.get(name, impl=impl, block=3, **options_of(name))
    mesh = make_mesh(MeshConfig(replica=2, fsdp=4))

    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=(jax.P(AXES), jax.P(), jax.P(AXES), jax.P(AXES)), out_specs=jax.P()
    )
    def call(z, scale, present, ids):
        return objective(z, logit_scale=scale, present=present, ids=ids, key=KEY, axis_name=AXES).mean()

    actual = jax.jit(jax.value_and_grad(call, argnums=(0, 1)))(z, jnp.float32(14.0), present, ids)
    check(actual, expected)


def test_one_axis_of_two_equals_one_device(rng):
    z, present, ids = batch(rng)
    mesh = make_mesh(MeshConfig(replica=1, fsdp=4, tensor=2))
    objective = losses.get("info_nce", impl="ring", block=4, **options_of("info_nce"))
    with jax.set_mesh(mesh):
        actual = value_and_gradient(objective, batch_axes=("fsdp",))(z, jnp.float32(14.0), present, ids)
    check(actual, dense("info_nce", z, present, ids))


def test_terms_are_the_same_on_every_mesh(rng):
    z, present, _ids = batch(rng)
    expected = losses.get("symile")(z, logit_scale=14.0, present=present, key=KEY).metrics()
    with jax.set_mesh(make_mesh(MeshConfig(replica=4, fsdp=2))):

        def call(z, present):
            return losses.get("symile")(z, logit_scale=14.0, present=present, key=KEY, batch_axes=AXES)

        actual = jax.jit(lambda z, present: call(z, present).metrics())(z, present)
    assert_close(actual, expected, TOLERANCE)


def temporary_bytes(objective, rows, devices=1, **place):
    """Of a compiled value and gradient, per device."""
    mesh = make_mesh(MeshConfig(replica=1), jax.devices()[:devices])
    spec = jax.ShapeDtypeStruct((rows, 16), jnp.float32, sharding=jax.NamedSharding(mesh, jax.P(AXES)))
    with jax.set_mesh(mesh):

        def call(z):
            return objective(z, logit_scale=14.0, key=KEY, **place).mean()

        compiled = jax.jit(jax.grad(call)).lower(dict.fromkeys("abc", spec)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("name", OBJECTIVES)
def test_streamed_losses_store_no_similarity_matrix(name):
    options = OBJECTIVES[name]
    rows, matrix = 2048, 4 * 2048**2
    small, large = (temporary_bytes(losses.get(name, impl="gather", block=64, **options), n) for n in (rows // 4, rows))
    assert large < matrix / 2
    assert large < 5 * small  # linear growth is a factor 4, that of a matrix 16
    assert temporary_bytes(losses.get(name, impl="dense", **options), rows) > matrix


@pytest.mark.parametrize("name", ["info_nce", "gram"])
def test_ring_memory_per_device_does_not_grow_with_devices(name):
    objective = losses.get(name, impl="ring", block=64, **OBJECTIVES[name])
    two, eight = (temporary_bytes(objective, 256 * n, n, batch_axes=AXES) for n in (2, 8))
    assert eight < 1.1 * two
