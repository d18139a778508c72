"""What a compiled training step says of memory, communication and time."""

import dataclasses
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from medjax.errors import UserError
from medjax.sharding import held
from medjax.sharding.mesh import AXES, MeshConfig, slice_numbers
from medjax.sharding.rules import Placement
from medjax.training.experiment import Experiment
from medjax.training.flops import matmul_flops, model_flops
from medjax.training.planning.compiling import Traced
from medjax.training.planning.description import Description
from medjax.training.planning.hlo import Collectives, collectives
from medjax.training.planning.topology import Topology
from medjax.training.program import tracing

MAX_ACCIDENTAL = 0.05  # share of the parameter bytes


class MemoryLimitError(UserError):
    """The compiler refuses the program for want of memory."""


@dataclass(frozen=True)
class Memory:
    """Bytes per device. optimizer, ema, other: of the state; temporaries: activations, gradients and all else that a
    step makes and forgets; peak: all together, as far as outputs do not take the place of arguments.
    """

    parameters: int
    optimizer: int
    ema: int
    other: int
    batch: int
    temporaries: int
    peak: int

    @classmethod
    def of(cls, traced: Traced, compiled: jax.stages.Compiled) -> "Memory":
        """Arguments by their shardings, the rest as the compiler laid it out."""
        s, m = traced.state, compiled.memory_analysis()
        other = held((s.method, s.step, s.bad_steps, s.skipped)).per_device
        peak = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes + m.temp_size_in_bytes
        parts = [held(x).per_device for x in (s.params, s.optimizer, s.ema)]
        return cls(*parts, other, held(traced.batch).per_device, m.temp_size_in_bytes, peak)


@dataclass(frozen=True)
class Floor:
    """Seconds below which no step can be, by what data sheets promise; each as if the others cost nothing. compute:
    matrix products in bfloat16, recomputation included. memory: every byte of state and batch is read once, and of the
    state written once. links: what a device sends within its slice, network: beyond it.
    """

    compute: float
    memory: float
    links: float
    network: float

    @property
    def binding(self) -> str:
        """Which of them is largest."""
        return max(dataclasses.asdict(self), key=lambda k: getattr(self, k))

    @property
    def step(self) -> float:
        """Seconds."""
        return getattr(self, self.binding)


@dataclass(frozen=True)
class Plan:
    """One training step of a recipe on a mesh. parameters: by tower and other part. model_flops: of an example, forward
    and backward. step_flops: of a device in a step, with what is recomputed. accidental: parameters that lie whole on
    every device for want of a dimension that divides. exact: whether the compiler was that of the devices.
    """

    topology: Topology
    mesh: dict[str, int]
    batch_size: int
    parameters: dict[str, int]
    parameter_bytes: int
    model_flops: float
    step_flops: float
    memory: Memory
    collectives: Collectives
    accidental: tuple[Placement, ...]
    exact: bool
    compile_seconds: float
    notes: tuple[str, ...]

    @property
    def accidental_share(self) -> float:
        """Of the parameter bytes."""
        return sum(p.bytes for p in self.accidental) / max(self.parameter_bytes, 1)

    @property
    def capacity(self) -> float | None:
        """Bytes of memory of a device."""
        return self.topology.chip.memory if self.topology.chip else None

    @property
    def fits(self) -> bool | None:
        """Whether a step fits into the memory of a device; None where that is not known."""
        return None if self.capacity is None else self.memory.peak <= self.capacity

    @property
    def floor(self) -> Floor | None:
        """None for devices without a data sheet."""
        chip, m = self.topology.chip, self.memory
        if chip is None:
            return None
        state = m.parameters + m.optimizer + m.ema + m.other
        beyond = self.collectives.sent_beyond
        network = beyond / chip.network if chip.network else 0.0
        links = (self.collectives.sent - beyond) / chip.link
        return Floor(self.step_flops / chip.flops, (2 * state + m.batch) / chip.bandwidth, links, network)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; bytes and seconds."""
        chip, floor = self.topology.chip, self.floor
        out = {
            "topology": self.topology.name,
            "devices": self.topology.devices,
            "slices": self.topology.slices,
            "mesh": self.mesh,
            "batch_size": self.batch_size,
            "compiled_for_these_devices": self.exact,
            "compile_seconds": round(self.compile_seconds, 1),
            "parameters": self.parameters,
            "model_flops_per_example": self.model_flops,
            "flops_per_device_and_step": self.step_flops,
            "bytes_per_device": dataclasses.asdict(self.memory),
            "device_memory": self.capacity,
            "fits": self.fits,
            "collectives": self.collectives.rows(),
            "collective_bytes_per_device": self.collectives.sent,
            "collective_bytes_beyond_slice": self.collectives.sent_beyond,
            "loops_of_unknown_length": self.collectives.open_loops,
            "replicated_by_accident": [p.path for p in self.accidental],
            "replicated_by_accident_share": self.accidental_share,
            "notes": list(self.notes),
        }
        if floor is not None:
            seconds = dataclasses.asdict(floor)
            most = self.batch_size / floor.step
            ideal = self.model_flops * self.batch_size / self.topology.devices / chip.flops / floor.step
            out["floor_seconds"] = {**seconds, "step": floor.step, "binding": floor.binding}
            out["most_examples_per_second"] = most
            out["highest_model_flops_utilisation"] = ideal
            out["data_sheet"] = dataclasses.asdict(chip)
        return out


def make_plan(experiment: Experiment, description: Description, topology: Topology, mesh: Mesh) -> Plan:
    """Compiles the recipe's training step for the devices of the mesh and reads the result.

    Raises:
      MemoryLimitError: the compiler found no way to fit a step into the memory of a device.
      UserError: anything wrong with the recipe, or a batch that the devices cannot share.
    """
    start = time.monotonic()
    traced = Traced.create(experiment, description, mesh)
    try:
        compiled = traced.compile()
    except jax.errors.JaxRuntimeError as error:
        raise _unfit(error, experiment, topology) from None
    slices = slice_numbers(mesh_config(experiment.mesh, topology), mesh)
    with tracing(experiment, mesh):
        step = matmul_flops(traced.program.step, traced.state, traced.batch)
        model = model_flops(traced.method, traced.state.params, traced.state.method, traced.batch)
    notes = list(description.notes)
    if topology.kind == "gpu":
        notes.append(
            "an estimate: parameters, optimizer and batch are exact, temporaries and collectives are those that XLA "
            "chooses for as many virtual CPU devices, which compute bfloat16 in float32 and fuse less"
        )
    return Plan(
        topology=topology,
        mesh={a: mesh.shape[a] for a in AXES},
        batch_size=experiment.data.batch_size,
        parameters=_count(traced.state.params),
        parameter_bytes=held(traced.state.params).bytes,
        model_flops=model / experiment.data.batch_size,
        step_flops=step / topology.devices,
        memory=Memory.of(traced, compiled),
        collectives=collectives(compiled.as_text(), AXES, tuple(mesh.shape[a] for a in AXES), slices),
        accidental=tuple(p for p in traced.program.factory.shardings[1] if p.by_accident),
        exact=topology.kind != "gpu",
        compile_seconds=time.monotonic() - start,
        notes=tuple(notes),
    )


def check(plan: Plan) -> None:
    """Raises UserError, which names them, where too much of the parameters lies whole on every device by accident."""
    if plan.accidental_share > MAX_ACCIDENTAL:
        names = "; ".join(f"{p.path} ({p.note})" for p in plan.accidental)
        raise UserError(
            f"{plan.accidental_share:.1%} of the parameter bytes lie whole on every device of {plan.topology.name} by "
            f"accident, more than {MAX_ACCIDENTAL:.0%}: {names}; change config.mesh or the widths"
        )


def _unfit(error: Exception, experiment: Experiment, topology: Topology) -> Exception:
    text = " ".join(str(error).split())
    if "RESOURCE_EXHAUSTED" not in text:
        return error
    found = re.search(r"Used [\d.]+\w? of [\d.]+\w? \w+", text)
    return MemoryLimitError(
        f"a batch of {experiment.data.batch_size} does not fit into the memory of {topology.name}"
        f"{f' ({found[0]})' if found else ''}; take more devices, a smaller --batch_size, config.train.micro_batch or "
        "remat='full' of the towers; --find_batch looks for the largest that fits"
    )


def mesh_config(config: MeshConfig, topology: Topology) -> MeshConfig:
    """The recipe's mesh; nodes of virtual GPUs, which do not say where they stand, are made slices of it."""
    return dataclasses.replace(config, slices=config.slices or topology.slices)


def _count(params: Mapping[str, Any]) -> dict[str, int]:
    """Numbers, by tower and by each other part of the method."""
    towers = {f"towers/{m}": x for m, x in params.get("towers", {}).items()}
    rest = {k: v for k, v in params.items() if k != "towers"}
    return {k: sum(math.prod(x.shape) for x in jax.tree.leaves(v)) for k, v in {**towers, **rest}.items()}
