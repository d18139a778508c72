"""Programs that are kept compiled: a restart takes them from a folder instead of compiling again."""

import hashlib
import logging
import os
import platform
from pathlib import Path

import jax

log = logging.getLogger("medjax")


def default_cache() -> str:
    """$JAX_COMPILATION_CACHE_DIR (or JAX's flag of that name), else a folder in the user's cache directory.

    The latter is one for each kind of CPU, since what is compiled for one may not run on another and a home may be
    shared by both.
    """
    given = jax.config.jax_compilation_cache_dir
    if given is not None:
        return given
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return str(home / "medjax" / "compiled" / f"{platform.machine()}-{_cpu()}")


def keep_compiled(folder: str) -> bool:
    """From now on programs that take more than a second to compile are kept in `folder`, local or a bucket; empty
    keeps none. JAX keeps what it tuned on GPUs there too.

    Returns whether they are: a folder that cannot be written is no reason not to run.
    """
    if folder and "://" not in folder:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            log.warning("compiled programs are not kept: %s; name another folder with --compilation_cache", error)
            folder = ""
    jax.config.update("jax_compilation_cache_dir", folder or None)
    if folder:
        jax.config.update("jax_persistent_cache_enable_xla_caches", "xla_gpu_per_fusion_autotune_cache_dir")
    return bool(folder)


def _cpu() -> str:
    """Eight digits that differ between CPUs of different instruction sets."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return hashlib.sha256(flags.encode()).hexdigest()[:8]
