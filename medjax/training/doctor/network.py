"""How fast devices reach each other."""

import statistics
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from medjax.sharding.chips import chip_of
from medjax.training.doctor.findings import Finding, Status

_CALLS = 3


def collectives(mesh: Mesh) -> Iterator[Finding]:
    """All-reduce, all-gather and a ring's pass, by size: time of a small one, bytes a device sends of a large one."""
    n = mesh.size
    if n == 1:
        yield Finding("collectives", Status.OK, "one device")
        return
    device = jax.local_devices()[0]
    line = Mesh(mesh.devices.reshape(-1), ("d",), axis_types=(AxisType.Auto,))
    sizes = (2**12, 2**20) if device.platform == "cpu" else (2**12, 2**22, 2**26)
    chip = chip_of(device.device_kind)
    for name, make, sent in _KINDS:
        call, check = make(n)
        spread = jax.jit(jax.shard_map(call, mesh=line, in_specs=PartitionSpec("d"), out_specs=PartitionSpec("d")))
        shown, rate = [], 0.0
        for size in sizes:
            seconds, right = _measure(spread, check, size, n, line)
            if not right:
                advice = "do not train on these devices; try another driver, and NCCL_DEBUG=INFO on GPUs"
                yield Finding(name, Status.FAIL, f"wrong sums of {size / 2**10:.0f} KiB", advice)
                return
            rate = size * sent(n) / seconds
            shown.append(f"{size / 2**10:.0f} KiB {seconds * 1e3:.2f} ms")
        promised = min(x for x in (chip.link, chip.network or chip.link) if x) if chip else 0.0
        status = Status.WARN if rate < 0.05 * promised else Status.OK
        advice = f"the data sheet says {promised / 1e9:.0f} GB/s; NCCL_DEBUG=INFO tells which network is used"
        yield Finding(name, status, f"{', '.join(shown)}; a device sends {rate / 1e9:.3g} GB/s", advice)


def _measure(call: Callable, check: Callable, size: int, n: int, line: Mesh) -> tuple[float, bool]:
    """Median seconds of a call with `size` bytes a device, and whether its result is right."""
    count = max(size // 4 // n, 1) * n  # divides by the devices
    values = np.arange(n, dtype=np.float32)
    x = jax.make_array_from_callback(
        (n * count,), NamedSharding(line, PartitionSpec("d")), lambda i: np.repeat(values, count)[i]
    )
    out = jax.block_until_ready(call(x))
    right = all(check(np.asarray(s.data), s.index[0].start or 0) for s in out.addressable_shards)
    times = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        jax.block_until_ready(call(x))  # on CPU, calls that are not waited for can deadlock
        times.append(time.perf_counter() - start)
    return statistics.median(times), right


def _all_reduce(n: int):
    want = n * (n - 1) / 2

    def call(x):
        return jax.lax.pcast(jax.lax.psum(x, "d"), "d", to="varying")

    return call, lambda shard, start: bool((shard == want).all())


def _all_gather(n: int):
    def call(x):
        return jax.lax.all_gather(x[: x.shape[0] // n], "d", tiled=True)

    def check(shard, start):
        return bool((shard == np.repeat(np.arange(n), len(shard) // n)).all())

    return call, check


def _pass_on(n: int):
    def call(x):
        return jax.lax.ppermute(x, "d", [(i, (i + 1) % n) for i in range(n)])

    def check(shard, start):
        return bool((shard == (start // len(shard) - 1) % n).all())

    return call, check


# Name, maker of the call and of its check, and the bytes that a device sends as a multiple of its size.
_KINDS = (
    ("all-reduce", _all_reduce, lambda n: 2 * (n - 1) / n),
    ("all-gather", _all_gather, lambda n: (n - 1) / n),
    ("pass round a ring", _pass_on, lambda n: 1.0),
)
