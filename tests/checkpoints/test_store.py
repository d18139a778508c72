"""A checkpoint comes back bit for bit on any mesh, and a damaged one is noticed, set aside and never used."""

import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from medjax.checkpoints import CheckpointStore, integrity
from medjax.errors import UserError
from medjax.sharding import MeshConfig, make_mesh

# Devices, mesh and sharding to restore to.
LAYOUTS = [
    (1, {}, PartitionSpec()),
    (2, {"fsdp": 2}, PartitionSpec("fsdp")),
    (2, {"tensor": 2}, PartitionSpec(None, "tensor")),
    (4, {"fsdp": 2, "tensor": 2}, PartitionSpec("tensor", "fsdp")),
    (4, {"replica": 4, "fsdp": 1}, PartitionSpec()),
    (8, {"replica": 2, "fsdp": 4}, PartitionSpec(("replica", "fsdp"))),
]


def mesh(*shape):
    names = ("a", "b", "c")[: len(shape)]
    devices = jax.devices()[: int(np.prod(shape))]
    return jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(shape), devices=devices)


def tree(seed: int, on) -> dict:
    """Parameters of several types, one of them sharded over the first axis of the mesh."""
    rng = np.random.default_rng(seed)
    split, everywhere = NamedSharding(on, PartitionSpec("a")), NamedSharding(on, PartitionSpec())
    odd = np.array([np.nan, -0.0, np.inf, 1e-42], np.float32)
    return {
        "kernel": jax.device_put(rng.normal(size=(8, 16)).astype(np.float32), split),
        "half": jax.device_put(jnp.asarray(rng.normal(size=(8,)), jnp.bfloat16), everywhere),
        "odd": jax.device_put(odd, everywhere),
    }


def rest(seed: int, on) -> dict:
    return {
        "moments": tree(100 + seed, on),
        "step": jax.device_put(jnp.int32(seed), NamedSharding(on, PartitionSpec())),
    }


def abstract(values, on=None):
    def like(x):
        sharding = x.sharding if on is None else NamedSharding(on, x.sharding.spec)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(like, values)


def assert_bits_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.fixture(scope="module")
def eight():
    return mesh(8)


@pytest.fixture
def store(tmp_path):
    made = CheckpointStore(tmp_path / "checkpoints", keep=3)
    yield made
    made.close()


def save(store, on, *steps):
    for step in steps:
        store.save(step, tree(step, on), rest(step, on), {"step": step, "note": "sound"})


def files(tmp_path, step) -> list:
    folder = tmp_path / "checkpoints" / str(step)
    return sorted(p for p in folder.rglob("*") if p.is_file())


def test_everything_comes_back_bit_for_bit_where_it_was(store, eight):
    save(store, eight, 1, 2)
    for step in (1, 2):
        params, others = tree(step, eight), rest(step, eight)
        got_params, got_rest, meta = store.restore(step, abstract(params), abstract(others))
        assert_bits_equal((got_params, got_rest), (params, others))
        assert meta == {"step": step, "note": "sound"}
        assert got_params["kernel"].sharding == params["kernel"].sharding
        assert len(got_params["kernel"].addressable_shards) == 8


def test_another_process_finds_what_was_saved(store, eight, tmp_path):
    save(store, eight, 5)
    other = CheckpointStore(tmp_path / "checkpoints")
    assert other.latest_valid_step() == 5
    assert_bits_equal(other.restore(5, abstract(tree(0, eight)), abstract(rest(0, eight)))[0], tree(5, eight))
    other.close()


@pytest.mark.parametrize("shape", [(1,), (2,), (4, 2)])
def test_another_mesh_gets_the_same_values(store, eight, shape):
    save(store, eight, 1)
    there = mesh(*shape)
    params, others = tree(1, eight), rest(1, eight)
    got, got_rest, _ = store.restore(1, abstract(params, there), abstract(others, there))
    assert_bits_equal((got, got_rest), (params, others))
    assert got["kernel"].sharding.mesh.devices.size == np.prod(shape)


@pytest.mark.parametrize("devices, config, spec", LAYOUTS)
def test_the_mesh_of_a_run_may_change_when_it_goes_on(sharded_run, devices, config, spec):
    """From eight devices, fsdp 4 and tensor 2, to fewer of them and other layouts."""
    store, params = sharded_run
    there = make_mesh(MeshConfig(**config), jax.devices()[:devices])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(there, spec)), params)
    got, _, _ = store.restore(7, like, like)
    assert_bits_equal(got, params)
    assert all(x.sharding == like[name].sharding for name, x in got.items())


@pytest.fixture(scope="module")
def sharded_run(tmp_path_factory):
    """A store and the parameters of its step 7, split over fsdp and tensor."""
    everywhere = make_mesh(MeshConfig(fsdp=4, tensor=2), jax.devices())
    rng, split = np.random.default_rng(3), NamedSharding(everywhere, PartitionSpec("fsdp", "tensor"))
    bits = {name: rng.integers(0, 1 << 16, (16, 32), np.uint16) for name in ("a", "b")}
    params = {
        "half": jax.device_put(bits["a"].view(jnp.bfloat16), split),
        "single": jax.device_put(rng.normal(size=(16, 32)).astype(np.float32), split),
    }
    store = CheckpointStore(tmp_path_factory.mktemp("sharded"))
    store.save(7, params, params, {})
    yield store, params
    store.close()


def test_parameters_alone_come_to_one_device(store, eight):
    save(store, eight, 1)
    params, meta = store.restore_params(1)
    assert_bits_equal(params, tree(1, eight))
    assert meta["step"] == 1
    assert all(x.devices() == {jax.local_devices()[0]} for x in jax.tree.leaves(params))


def test_a_step_that_is_there_is_left_alone(store, eight):
    save(store, eight, 1)
    store.save(1, tree(9, eight), rest(9, eight), {"step": 9})
    assert_bits_equal(store.restore_params(1)[0], tree(1, eight))


@pytest.mark.parametrize("keep", [1, 2])
def test_the_newest_are_kept(tmp_path, eight, keep):
    store = CheckpointStore(tmp_path / "checkpoints", keep=keep)
    save(store, eight, 1, 2, 3, 4)
    assert store.steps() == [1, 2, 3, 4][-keep:]
    assert store.latest_valid_step() == 4
    store.close()


def test_nothing_saved_is_none(store):
    assert store.latest_valid_step() is None and store.steps() == []


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "bit":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "missing":
        path.unlink()


def test_a_flipped_bit_in_any_file_is_noticed(store, eight, tmp_path):
    save(store, eight, 1)
    assert integrity.damage(tmp_path / "checkpoints" / "1") is None
    for path in files(tmp_path, 1):
        data = path.read_bytes()
        if data:
            damage(path, "bit")
            assert integrity.damage(tmp_path / "checkpoints" / "1") is not None, path
            with pytest.raises(UserError, match="is damaged"):
                store.restore_params(1)
            path.write_bytes(data)
    assert integrity.damage(tmp_path / "checkpoints" / "1") is None


@pytest.mark.parametrize("how", ["bit", "truncated", "missing"])
@pytest.mark.parametrize("item", ["params", "rest", "meta"])
def test_the_newest_sound_one_is_used_and_the_damaged_one_set_aside(store, eight, tmp_path, caplog, how, item):
    save(store, eight, 1, 2, 3)
    victim = max((p for p in files(tmp_path, 3) if f"/3/{item}/" in str(p)), key=size)
    damage(victim, how)
    with caplog.at_level(logging.WARNING, "medjax"):
        assert store.latest_valid_step() == 2
    assert store.steps() == [1, 2]
    (aside,) = (tmp_path / "checkpoints" / "damaged").iterdir()
    assert aside.name.startswith("3-") and any(aside.rglob("*"))
    assert "checkpoint 3 is damaged" in caplog.text
    assert_bits_equal(store.restore_params(2)[0], tree(2, eight))
    # Training goes on and reaches the step again.
    save(store, eight, 3)
    assert store.latest_valid_step() == 3


def size(path) -> int:
    return path.stat().st_size


def test_a_save_that_was_not_finished_is_not_used(store, eight, tmp_path):
    save(store, eight, 1, 2)
    (tmp_path / "checkpoints" / "2" / integrity.FILE).unlink()
    assert store.latest_valid_step() == 1


def test_a_reader_passes_over_what_is_not_finished_and_changes_nothing(store, eight, tmp_path):
    save(store, eight, 1, 2)
    (tmp_path / "checkpoints" / "2" / integrity.FILE).unlink()  # as while a run is saving it
    before = sorted(tmp_path.rglob("*"))
    reader = CheckpointStore(tmp_path / "checkpoints", read_only=True)
    assert reader.latest_valid_step() == 1
    found, meta = reader.restore_params(1)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), found, tree(1, eight))
    assert meta["step"] == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_unreadable_checksums_are_damage(store, eight, tmp_path):
    save(store, eight, 1, 2)
    (tmp_path / "checkpoints" / "2" / integrity.FILE).write_text('{"params')
    assert store.latest_valid_step() == 1


def test_a_file_that_was_added_is_damage(store, eight, tmp_path):
    save(store, eight, 1, 2)
    (tmp_path / "checkpoints" / "2" / "params" / "more").write_text("x")
    assert store.latest_valid_step() == 1


def test_where_all_are_damaged_there_is_none_and_all_are_kept_aside(store, eight, tmp_path):
    save(store, eight, 1, 2)
    for step in (1, 2):
        damage(max(files(tmp_path, step), key=size), "bit")
    assert store.latest_valid_step() is None
    assert len(list((tmp_path / "checkpoints" / "damaged").iterdir())) == 2


def test_checksums_name_every_other_file(store, eight, tmp_path):
    save(store, eight, 1)
    folder = tmp_path / "checkpoints" / "1"
    sealed = json.loads((folder / integrity.FILE).read_text())
    assert sealed["step"] == 1
    assert set(sealed["files"]) == {str(p.relative_to(folder)) for p in files(tmp_path, 1)} - {integrity.FILE}
    assert all((folder / name).stat().st_size == entry["bytes"] for name, entry in sealed["files"].items())


@pytest.mark.parametrize("where", ["params", "rest"])
def test_another_dtype_is_refused_and_named(store, eight, where):
    save(store, eight, 1)
    params, others = abstract(tree(1, eight)), abstract(rest(1, eight))
    target = params if where == "params" else others["moments"]
    kernel = target["kernel"]
    target["kernel"] = jax.ShapeDtypeStruct(kernel.shape, jnp.bfloat16, sharding=kernel.sharding)
    with pytest.raises(UserError, match=rf"{where}/.*kernel is float32 in the checkpoint and bfloat16"):
        store.restore(1, params, others)


@pytest.mark.parametrize("change", ["shape", "more", "fewer"])
def test_other_parameters_are_refused_in_one_line(store, eight, change):
    save(store, eight, 1)
    params, others = abstract(tree(1, eight)), abstract(rest(1, eight))
    if change == "shape":
        params["kernel"] = jax.ShapeDtypeStruct((8, 32), jnp.float32, sharding=params["kernel"].sharding)
    elif change == "more":
        params["bias"] = params["odd"]
    else:
        del params["odd"]
    with pytest.raises(UserError, match="does not fit the configuration") as caught:
        store.restore(1, params, others)
    assert "\n" not in str(caught.value)


def test_every_difference_is_named_at_once(store, eight):
    save(store, eight, 1)
    params, others = abstract(tree(1, eight)), abstract(rest(1, eight))
    everywhere = NamedSharding(eight, PartitionSpec())
    for target, name in ((params, "kernel"), (params, "half"), (others["moments"], "odd")):
        target[name] = jax.ShapeDtypeStruct((3,), target[name].dtype, sharding=everywhere)
    others["new"] = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    del params["odd"]
    with pytest.raises(UserError) as caught:
        store.restore(1, params, others)
    said = str(caught.value)
    for part in ("params/kernel [8, 16] there, [3] here", "params/half [8]", "rest/moments/odd [4]", "lacks: rest/new"):
        assert part in said
    assert "no place for: params/odd" in said and "config.warm_start.dir" in said


def test_another_optimizer_is_told_from_another_model(store, eight):
    params = tree(1, eight)
    small = {"kernel": params["kernel"]}
    store.save(1, small, {"optimizer": optax.adam(0.1).init(small)}, {})
    other = {"optimizer": optax.sgd(0.1, momentum=0.9).init(small)}
    with pytest.raises(UserError, match=r"does not fit config\.optimizer.*rest/optimizer/0/trace/kernel.*warm_start"):
        store.restore(1, abstract(small), abstract(other))


def test_numbers_are_converted_only_when_asked_for(store, eight):
    save(store, eight, 1)
    params, others = abstract(tree(1, eight)), abstract(rest(1, eight))
    kernel = params["kernel"]
    params["kernel"] = jax.ShapeDtypeStruct(kernel.shape, jnp.bfloat16, sharding=kernel.sharding)
    with pytest.raises(UserError, match=r"restore_cast=True"):
        store.restore(1, params, others)
    got = store.restore(1, params, others, cast=True)[0]["kernel"]
    assert_bits_equal(got, tree(1, eight)["kernel"].astype(jnp.bfloat16))
    others["step"] = jax.ShapeDtypeStruct((), jnp.float32, sharding=others["step"].sharding)
    with pytest.raises(UserError, match="rest/step is int32"):
        store.restore(1, params, others, cast=True)


def test_what_is_empty_may_come_and_go(store, eight):
    params = tree(1, eight)
    store.save(1, params, {"queue": {}, "step": params["odd"]}, {})
    for others in ({"step": params["odd"]}, {"step": params["odd"], "average": {}, "queue": {}}):
        _, got, _ = store.restore(1, abstract(params), abstract(others))
        assert_bits_equal(got, others)


def test_a_step_that_is_not_there_is_answered_with_those_that_are(store, eight):
    save(store, eight, 1, 2)
    with pytest.raises(UserError, match=r"no checkpoint .*7; there are steps \[1, 2\]"):
        store.restore_params(7)
