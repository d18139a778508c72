"""Machines that are not there: TPU slices through their compiler, GPUs and CPUs as virtual devices of this machine."""

import importlib.util
import os
import re
from dataclasses import dataclass

import jax

from medjax.errors import UserError, suggest
from medjax.sharding.chips import CHIPS, Chip

_FORMS = "v5e:16x16, 2xv5p:4x4x4 (two slices), 8xH100, or cpu:8"
_TPU = re.compile(r"(?:(\d+)x)?(v\w+):(\d+(?:x\d+)+)")
_GPU = re.compile(r"(\d+)x([A-Z]\w+)")
_CPU = re.compile(r"cpu:(\d+)")


@dataclass(frozen=True)
class Topology:
    """name: as it was asked for. kind: of its devices. devices: how many. slices: of a fast network each. layout: of a
    TPU slice, as its compiler names it.
    """

    name: str
    kind: str
    devices: int
    slices: int
    chip: Chip | None = None
    layout: str = ""

    @classmethod
    def parse(cls, name: str) -> "Topology":
        """From `v5e:16x16`, `2xv5e:16x16` (two slices), `8xH100` or `cpu:8`.

        Raises:
          UserError: none of these, or an accelerator whose data sheet is not known.
        """
        if found := _CPU.fullmatch(name):
            return cls(name, "cpu", int(found[1]), 1)
        if found := _GPU.fullmatch(name):
            chip, count = _chip(found[2], "gpu"), int(found[1])
            if count > chip.node and count % chip.node:
                raise UserError(f"--topology={name}: nodes have {chip.node} of them; use a multiple of {chip.node}")
            return cls(name, "gpu", count, max(count // chip.node, 1), chip)
        if found := _TPU.fullmatch(name):
            chip, slices, size = _chip(found[2], "tpu"), int(found[1] or 1), 1
            for side in found[3].split("x"):
                size *= int(side)
            return cls(name, "tpu", size * slices, slices, chip, f"{found[2]}:{found[3]}")
        raise UserError(f"--topology={name!r} is no topology; write it as {_FORMS}")

    def prepare(self) -> None:
        """Sets this process up for it; must come before any other use of JAX's devices.

        Raises:
          UserError: the TPU compiler is not installed.
        """
        jax.config.update("jax_platforms", "cpu")
        if self.kind != "tpu":
            jax.config.update("jax_num_cpu_devices", self.devices)
            return
        if importlib.util.find_spec("libtpu") is None:
            raise UserError(
                f"--topology={self.name} needs the TPU compiler, which also runs where no TPU is: pip install libtpu, "
                "on Linux, of the version that jax[tpu] asks for (pip install 'jax[tpu]' installs both)"
            )
        # It looks for no chips, so that several plans, or a plan beside a training run, do not disturb each other.
        alone = {
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_ACCELERATOR_TYPE": "v5litepod-8",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        }
        for key, value in alone.items():
            os.environ.setdefault(key, value)

    def open(self) -> list[jax.Device]:
        """Its devices, which programs can be compiled for.

        Raises:
          UserError: there is no such slice, or another process has the TPU compiler.
        """
        if self.kind != "tpu":
            return jax.devices("cpu")[: self.devices]
        from jax.experimental import topologies

        options = {"num_slices": self.slices} if self.slices > 1 else {}
        if self.chip.name == "v4":  # whose two cores work as one device
            options["chip_config_name"] = "megacore"
        try:
            return topologies.get_topology_desc(self.layout, "tpu", **options).devices
        except Exception as error:  # of the C++ side, of several classes
            text = " ".join(str(error).split())
            if "lockfile" in text or "already in use" in text:
                raise UserError(
                    "another process of this machine has the TPU compiler for itself; let it end, or unset "
                    "ALLOW_MULTIPLE_LIBTPU_LOAD=0 "
                    f"({text[:200]})"
                ) from None
            raise UserError(f"--topology={self.name}: {text[:300]}") from None


def _chip(name: str, kind: str) -> Chip:
    known = [c.name for c in CHIPS.values() if c.name[0].islower() == (kind == "tpu")]
    if name not in known:
        raise UserError(f"--topology: no data sheet of {name!r}; {suggest(name, known)}")
    return CHIPS[name]
