"""What a recipe needs on machines that are not there: python -m medjax.bin.plan --config=... --topology=v5e:16x16."""

import json
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from medjax.bin import cli
from medjax.errors import UserError, check_choice
from medjax.sharding.mesh import BATCH_AXES, make_mesh
from medjax.training.experiment import Experiment, stages
from medjax.training.planning.compiling import with_batch
from medjax.training.planning.description import Assumed, Description, describe_data
from medjax.training.planning.page import COMPARED, comparison, page
from medjax.training.planning.plan import Plan, check, make_plan, mesh_config
from medjax.training.planning.search import largest_batch
from medjax.training.planning.topology import Topology

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe: configs/NAME.py[:argument,key=value].", lock_config=True
)
_TOPOLOGY = flags.DEFINE_list(
    "topology",
    [],
    "v5e:16x16, 2xv5p:4x4x4 (two slices), 8xH100 or cpu:8; several with commas, for a table in which the batch of a "
    "device stays that of the first.",
)
_BATCH = flags.DEFINE_integer("batch_size", 0, "Global batch; 0 is the recipe's.")
_FIND = flags.DEFINE_bool("find_batch", False, "Look for the largest batch that fits; several compilations.")
_STAGE = flags.DEFINE_string("stage", "", "Of a recipe with stages; default the last.")
_JSON = flags.DEFINE_string("json", "", "Also write the plan, or the list of plans, to this file.")
_VOCABULARY = flags.DEFINE_integer("vocabulary", 30522, "Word pieces, where no data set with a tokenizer is named.")
_LAB_VALUES = flags.DEFINE_integer("lab_values", 50, "Numbers of a table, where no data set is named.")


def main() -> None:
    """Plans, prints and writes.

    Raises:
      UserError: bad input, a step that does not fit, or parameters that lie whole on every device by accident.
    """
    if _CONFIG.value is None or not _TOPOLOGY.value:
        raise UserError("pass --config=configs/NAME.py and --topology=v5e:16x16, 8xH100 or cpu:8")
    topologies = [Topology.parse(name) for name in _TOPOLOGY.value]
    _prepare(topologies)
    experiment = _stage()
    description = describe_data(experiment, Assumed(_VOCABULARY.value, _LAB_VALUES.value))
    size = _BATCH.value or experiment.data.batch_size
    plans = []
    for topology in topologies:
        scaled = size * topology.devices // topologies[0].devices
        plans.append(_plan(with_batch(experiment, scaled), description, topology))
        print(page(plans[-1]), flush=True)
    if len(plans) > 1:
        cli.print_table(COMPARED, comparison(plans))
    if _JSON.value:
        found = [plan.as_dict() for plan in plans]
        Path(_JSON.value).write_text(json.dumps(found if len(found) > 1 else found[0], indent=1) + "\n")
    for plan in plans:
        check(plan)


def _prepare(topologies: list[Topology]) -> None:
    kinds = {t.kind == "tpu" for t in topologies}
    if len(kinds) > 1:
        raise UserError("--topology: TPUs have a compiler of their own; plan them apart from GPUs and CPUs")
    max(topologies, key=lambda t: t.devices).prepare()


def _stage() -> Experiment:
    found = dict(stages(_CONFIG.value))
    name = _STAGE.value or list(found)[-1]
    check_choice("stage", name, found)
    return found[name]


def _plan(experiment: Experiment, description: Description, topology: Topology) -> Plan:
    mesh = make_mesh(mesh_config(experiment.mesh, topology), topology.open())
    if not _FIND.value:
        return make_plan(experiment, description, topology, mesh)
    if topology.chip is None:
        raise UserError("--find_batch needs a topology whose memory is known, such as v5e:4x4 or 8xH100")
    unit = max(experiment.train.micro_batch, 1)
    for axis in BATCH_AXES:
        unit *= mesh.shape[axis]
    return largest_batch(
        lambda size: make_plan(with_batch(experiment, size), description, topology, mesh),
        *(experiment.data.batch_size, unit, topology.chip.memory),
    )


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
