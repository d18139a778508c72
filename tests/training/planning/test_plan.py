"""A plan holds what a run does: memory, shapes, and the warnings that stop it."""

import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from medjax.bin.cli import load_config
from medjax.data import Dataset
from medjax.errors import UserError
from medjax.methods import make_method
from medjax.models.partitioning import axis_rules
from medjax.sharding import ACTIVATION_RULES, make_mesh, to_global
from medjax.sharding.rules import Placement
from medjax.training.experiment import stages
from medjax.training.planning.description import Assumed, describe_data
from medjax.training.planning.page import COMPARED, comparison, page
from medjax.training.planning.plan import check, make_plan, mesh_config
from medjax.training.planning.topology import Topology
from medjax.training.program import Program
from medjax.training.starting import specs

ROOT = Path(__file__).parents[3]
RECIPE = "table.py:modalities=labs+text,width=16,depth=1,batch=16"


def _experiment(directory="", spec=RECIPE):
    config = load_config(str(ROOT / "configs" / spec))
    config.data.dir = str(directory)
    return stages(config)[-1][1]


def _bytes_on(device, tree) -> int:
    shards = [s for x in jax.tree.leaves(tree) for s in x.addressable_shards]
    return sum(s.data.nbytes for s in shards if s.device == device)


@pytest.fixture(scope="module")
def plan(phantom_dir):
    experiment, topology = _experiment(phantom_dir), Topology.parse("cpu:8")
    mesh = make_mesh(mesh_config(experiment.mesh, topology))
    return make_plan(experiment, describe_data(experiment, Assumed()), topology, mesh)


@pytest.mark.slow
def test_memory_is_what_a_run_allocates(plan, phantom_dir):
    experiment, dataset = _experiment(phantom_dir), Dataset.open(_experiment(phantom_dir).data)
    mesh = make_mesh(experiment.mesh)
    with jax.set_mesh(mesh), axis_rules(ACTIVATION_RULES):
        method = make_method(experiment.method, specs(dataset))
        batch = to_global(dataset.first_batch(0, 16).select(method.modalities), mesh)
        examples = dataset.manifest.splits["train"].examples
        program = Program.create(experiment, method, mesh, batch, experiment.steps(examples))
        state = program.factory.fresh(0)
        memory = program.step.lower(state, batch).compile().memory_analysis()
    planned, device = plan.memory, jax.devices()[5]
    assert planned.parameters == _bytes_on(device, state.params)
    assert planned.optimizer == _bytes_on(device, state.optimizer)
    assert planned.batch == _bytes_on(device, batch)
    assert planned.other == _bytes_on(device, (state.method, state.step, state.bad_steps, state.skipped))
    assert planned.temporaries == memory.temp_size_in_bytes
    assert planned.peak == (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )
    assert sum(plan.parameters.values()) == sum(x.size for x in jax.tree.leaves(state.params))


@pytest.mark.slow
def test_page_and_json_agree(plan):
    text, found = page(plan), plan.as_dict()
    assert found["mesh"] == {"replica": 1, "fsdp": 8, "tensor": 1}
    assert f"batch {found['batch_size']};" in text
    assert found["collective_bytes_per_device"] == sum(row["sent"] for row in found["collectives"]) > 0
    assert all(row["kind"] in text for row in found["collectives"])
    assert len(comparison([plan])[0]) == len(COMPARED)


@pytest.mark.slow
def test_floor_is_the_slowest_of_what_data_sheets_promise(plan):
    elsewhere = replace(plan, topology=Topology.parse("v5e:2x4"))
    floor, chip = elsewhere.floor, elsewhere.topology.chip
    assert floor.compute == plan.step_flops / chip.flops
    assert floor.links == plan.collectives.sent / chip.link
    assert floor.step == max(floor.compute, floor.memory, floor.links, floor.network)
    assert elsewhere.fits and plan.floor is None
    twice = replace(elsewhere, memory=replace(plan.memory, peak=int(17e9)))
    assert not twice.fits and "DOES NOT FIT" in page(twice)


@pytest.mark.slow
def test_what_lies_whole_by_accident_stops_a_plan(plan):
    check(plan)
    path, size = "towers/text/words/embedding", plan.parameter_bytes // 10
    table = Placement(path, (size // 4,), size, PartitionSpec(None), size, "vocab=9 does not divide by tensor=2")
    with pytest.raises(
        UserError, match=r"10\.0% of the parameter bytes .* by accident, more than 5%: towers/text/words"
    ):
        check(replace(plan, accidental=(table,)))


def test_shapes_from_a_manifest_alone_are_those_of_the_data(phantom_dir, tmp_path):
    """As on a laptop: no records, but manifest.json and the tokenizer."""
    shutil.copy(phantom_dir / "manifest.json", tmp_path)
    shutil.copytree(phantom_dir / "tokenizer", tmp_path / "tokenizer")
    spec = "phantom.py:tiny"
    found = describe_data(_experiment(tmp_path, spec), Assumed())
    dataset = Dataset.open(_experiment(phantom_dir, spec).data)
    assert found.specs == specs(dataset)
    assert (found.examples, found.notes) == (dataset.manifest.splits["train"].examples, ())
    real = jax.tree.map(np.asarray, dataset.first_batch(0, 16))
    jax.tree.map(
        lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype) or pytest.fail(f"{a} {b}"), found.batch(16), real
    )
    (tmp_path / "tokenizer").rename(tmp_path / "gone")
    found = describe_data(_experiment(tmp_path, spec), Assumed(vocabulary=777))
    assert found.specs["text"]["vocab_size"] == 777 and "777" in found.notes[0]


@pytest.mark.parametrize(
    ("name", "devices", "slices"),
    [
        ("cpu:8", 8, 1),
        ("v5e:16x16", 256, 1),
        ("2xv5p:4x4x4", 128, 2),
        ("8xH100", 8, 1),
        ("4xA100", 4, 1),
        ("64xH200", 64, 8),
    ],
)
def test_topologies(name, devices, slices):
    found = Topology.parse(name)
    assert (found.devices, found.slices) == (devices, slices)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5e", "is no topology; write it as v5e:16x16"),
        ("v5x:2x2", "no data sheet of 'v5x'; did you mean 'v5"),
        ("8xH10", "no data sheet of 'H10'; did you mean 'H100'"),
        ("12xH100", "use a multiple of 8"),
    ],
)
def test_topologies_that_are_none(name, message):
    with pytest.raises(UserError, match=message):
        Topology.parse(name)
