"""What data sheets promise of accelerators: the ceilings that plans and utilisations are measured against."""

from dataclasses import dataclass

_TPU = "cloud.google.com/tpu/docs/{}"
_GPU = "NVIDIA data sheets of {}, and of the DGX it stands in"


@dataclass(frozen=True)
class Chip:
    """One device as JAX counts them.

    kinds: starts of JAX's `device_kind`. flops: FLOP/s of bfloat16 matrix products, without sparsity. memory: bytes.
    bandwidth: of the memory, bytes/s. link: bytes/s that it can send to its slice or node, over all links together.
    network: bytes/s that it can send beyond; 0 where none is published. node: devices of a host.
    """

    name: str
    kinds: tuple[str, ...]
    flops: float
    memory: float
    bandwidth: float
    link: float
    network: float
    node: int
    source: str


# TPU pages give the interconnect in both directions together, and so do NVIDIA's for NVLink: half of it is sent.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", ("TPU v4",), 275e12, 32 * 2**30, 1200e9, 300e9, 0, 4, _TPU.format("v4")),
        Chip("v5e", ("TPU v5 lite", "TPU v5e"), 197e12, 16e9, 819e9, 200e9, 3.1e9, 4, _TPU.format("v5e")),
        Chip("v5p", ("TPU v5p", "TPU v5"), 459e12, 95e9, 2765e9, 600e9, 6.25e9, 4, _TPU.format("v5p")),
        Chip("v6e", ("TPU v6 lite", "TPU v6e"), 918e12, 32e9, 1638e9, 400e9, 12.5e9, 4, _TPU.format("v6e")),
        Chip("A100", ("NVIDIA A100",), 312e12, 80e9, 2039e9, 300e9, 25e9, 8, _GPU.format("A100 SXM 80 GB")),
        Chip("H100", ("NVIDIA H100",), 989e12, 80e9, 3350e9, 450e9, 50e9, 8, _GPU.format("H100 SXM")),
        Chip("H200", ("NVIDIA H200",), 989e12, 141e9, 4800e9, 450e9, 50e9, 8, _GPU.format("H200 SXM")),
        Chip("B200", ("NVIDIA B200",), 2250e12, 180e9, 8000e9, 900e9, 50e9, 8, _GPU.format("B200 SXM")),
    )
}


def chip_of(device_kind: str) -> Chip | None:
    """The data sheet of a device by its `device_kind`; None where there is none."""
    found = [(len(kind), chip) for chip in CHIPS.values() for kind in chip.kinds if device_kind.startswith(kind)]
    return max(found, key=lambda x: x[0])[1] if found else None
