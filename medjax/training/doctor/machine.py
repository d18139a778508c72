"""Devices, packages, processes, memory and signals."""

import contextlib
import importlib.metadata
import os
import platform
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.extend import backend
from packaging.requirements import Requirement

from medjax.sharding.chips import chip_of
from medjax.training.doctor.findings import Finding, Status

_SHOWN = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
_ACCELERATORS = {"/dev/nvidiactl": "medjax[cuda]", "/dev/accel0": "medjax[tpu]", "/dev/vfio/0": "medjax[tpu]"}
_PATIENCE = 2.0


def devices() -> Iterator[Finding]:
    """What JAX sees, and whether it overlooks an accelerator."""
    local = jax.local_devices()
    chip = chip_of(local[0].device_kind)
    version = " ".join(backend.get_backend().platform_version.split())[:80]
    memory = (local[0].memory_stats() or {}).get("bytes_limit")
    size = f", {memory / 2**30:.0f} GiB each" if memory else ""
    found = f"{jax.device_count()} x {local[0].device_kind} ({local[0].platform}: {version}){size}"
    unused = [extra for path, extra in _ACCELERATORS.items() if Path(path).exists()]
    if local[0].platform == "cpu" and unused:
        wanted = os.environ.get("JAX_PLATFORMS", "") == "cpu"
        advice = "unset JAX_PLATFORMS" if wanted else f"pip install '{unused[0]}', and look at the driver"
        yield Finding("devices", Status.WARN if wanted else Status.FAIL, f"{found}, and an accelerator unused", advice)
    else:
        known = "" if chip or local[0].platform == "cpu" else "; its data sheet is not known"
        yield Finding("devices", Status.OK, found + known, same=True)
    if local[0].platform in ("gpu", "cuda") and shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False).stdout.split()
        yield Finding(
            "driver", Status.OK if driver else Status.WARN, f"NVIDIA {', '.join(sorted({*driver}))}", same=True
        )


def packages() -> Iterator[Finding]:
    """Versions against what medjax asks for, and JAX's own parts against each other."""
    wrong = []
    for line in importlib.metadata.requires("medjax") or ():
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            have = _version(wanted.name)
            if not have or not wanted.specifier.contains(have, prereleases=True):
                wrong.append(f"{wanted} (here {have or 'none'})")
    plugins = [d.metadata["Name"] for d in importlib.metadata.distributions() if d.metadata["Name"]]
    for name in sorted({p for p in plugins if p.startswith("jax-cuda")}):
        if _version(name) != _version("jaxlib"):
            wrong.append(f"{name}=={_version('jaxlib')}, as jaxlib (here {_version(name)})")
    found = f"Python {platform.python_version()}, " + ", ".join(f"{p} {_version(p)}" for p in _SHOWN)
    if wrong:
        yield Finding("packages", Status.FAIL, found, f"install {', '.join(wrong)}", same=True)
    else:
        yield Finding("packages", Status.OK, found, same=True)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def threads() -> Iterator[Finding]:
    """On CPU: whether XLA has the threads that its collectives wait for."""
    if jax.default_backend() != "cpu":
        return
    count = int(os.environ.get("NPROC") or os.cpu_count() or 1)
    needed = jax.local_device_count() * (2 if jax.process_count() > 1 else 1)
    found = f"{count} for {jax.local_device_count()} virtual devices of each of {jax.process_count()} processes"
    enough = jax.device_count() == 1 or count >= needed
    advice = f"export NPROC=16 (at least {needed}) before Python starts: with fewer, collectives wait for ever"
    yield Finding("threads of XLA", Status.OK if enough else Status.FAIL, found, advice, fatal=True)


def processes() -> Iterator[Finding]:
    """How many there are, whether they have as many devices each, and whether their clocks agree."""
    count = jax.process_count()
    if count == 1:
        yield Finding("processes", Status.OK, f"1 on {platform.node()}; several find each other with --coordinator")
        return
    local = np.asarray(multihost_utils.process_allgather(np.int32(jax.local_device_count()))).reshape(-1)
    status = Status.OK if len({*local.tolist()}) == 1 else Status.FAIL
    advice = "give every process as many devices (SLURM: --gpus-per-task)"
    yield Finding(
        "processes", status, f"{count}, with {', '.join(map(str, sorted({*local.tolist()})))} devices", advice
    )
    skew = min(_skew() for _ in range(3))
    status = Status.OK if skew < 2 else Status.WARN if skew < 60 else Status.FAIL
    advice = "logs will not line up, and certificates and buckets refuse clocks that are off; start chrony or ntpd"
    yield Finding("clocks", status, f"within {skew:.3f} s of each other", advice)


def _skew() -> float:
    """Seconds between the earliest and the latest clock, the barrier's own spread included."""
    multihost_utils.sync_global_devices("medjax-doctor-clock")
    now = time.time_ns()
    # int32 is all that crosses without 64-bit mode.
    pair = np.asarray([now // 10**9 % 2**30, now % 10**9], np.int32)
    seconds = np.asarray(multihost_utils.process_allgather(pair)).astype(np.float64) @ [1.0, 1e-9]
    return float(np.ptp(seconds))


def memory() -> Iterator[Finding]:
    """Of the host, what workers share it through, and open files."""
    info = Path("/proc/meminfo")
    if info.is_file():
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) / 2**20
        status = Status.OK if free > 4 else Status.WARN
        yield Finding(
            "host memory", status, f"{free:.1f} GiB free", "leave config.data.cache off, and read with threads"
        )
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free / 2**20
        advice = "workers hand batches over through it: docker run --shm-size=8g, or config.data.workers=0"
        yield Finding("/dev/shm", Status.OK if free > 512 else Status.WARN, f"{free:.0f} MiB free", advice)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield Finding("open files", Status.OK if limit >= 4096 else Status.WARN, f"up to {limit}", "ulimit -n 65536")


def sigterm() -> Iterator[Finding]:
    """Whether the notice of preemption arrives: sent to itself, and what may hold it up on the way."""
    if threading.current_thread() is not threading.main_thread():
        return
    with contextlib.suppress(OSError):
        parent = Path(f"/proc/{os.getppid()}/comm").read_text().strip()
        if os.getppid() == 1 and parent in ("sh", "bash", "dash"):
            advice = "start Python with exec, or the container with --init"
            yield Finding("SIGTERM", Status.WARN, f"{parent} is process 1 and does not pass it on", advice)
            return
    heard = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: heard.set())
    os.kill(os.getpid(), signal.SIGTERM)
    arrived = heard.wait(_PATIENCE)
    signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
    advice = "something blocks it (a wrapper's trap, a signal mask): a preempted run would lose what it has not saved"
    yield Finding("SIGTERM", Status.OK if arrived else Status.FAIL, "arrives" if arrived else "does not arrive", advice)
