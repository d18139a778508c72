"""Eight virtual CPU devices, strict shapes, and small data sets that several tests share."""

import fcntl
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
os.environ.setdefault("NPROC", "16")  # with fewer threads than devices XLA's collectives wait for ever
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # most of the time of a test is compilation
if "MEDJAX_TEST_CONFIG" not in os.environ:  # the default key of ids is made here, and not in the home of the tester
    _CONFIG = tempfile.TemporaryDirectory(prefix="medjax-test-config-")
    os.environ["MEDJAX_TEST_CONFIG"] = os.environ["XDG_CONFIG_HOME"] = _CONFIG.name
sys.path.insert(0, str(Path(__file__).parent / "support"))

import jax
import numpy as np
import pytest
from absl import flags

jax.config.update("jax_numpy_rank_promotion", "raise")
# Many tests train the same small recipe: compile it once a session, whichever of its processes comes first.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="medjax-test-")
    os.environ["MEDJAX_TEST_CACHE"] = _CACHE.name
jax.config.update("jax_compilation_cache_dir", os.environ["MEDJAX_TEST_CACHE"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
# Programs that tests start keep theirs apart, and not in the home of the tester: some of them are killed.
os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{os.environ['MEDJAX_TEST_CACHE']}/programs"
flags.FLAGS.mark_as_parsed()

ROOT = Path(__file__).parent.parent


def _once(name: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make` fills, by the first process of the session that needs it; the others wait."""
    folder = Path(os.environ["MEDJAX_TEST_CACHE"]) / name
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.with_suffix(".made").exists():
            make(folder)
            folder.with_suffix(".made").touch()
    return folder


@pytest.hookimpl(trylast=True)  # once those that are not asked for are gone
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of few tests first: the long ones are among them, and should not run alone at the end."""
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: tests[item.path])


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real medical data; tests that need it skip where there is none."""
    folder = os.environ.get("MEDJAX_TEST_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MEDJAX_TEST_DATA does not name the folder of real test data")
    return Path(folder)


@pytest.fixture(scope="session")
def phantom_dir() -> Path:
    """A built phantom of 60 patients with pictures of 32 pixels. Read it, never write to it."""
    from medjax.data.building.build import Options, build_dataset
    from medjax.data.sources import Phantom

    def make(directory: Path) -> None:
        build_dataset(Phantom(patients=60, size=32), directory, Options(), lambda done, total: None)

    return _once("phantom", make)


@pytest.fixture(scope="session")
def phantom_run(phantom_dir) -> Path:
    """The workdir of four steps of the tiny phantom recipe. Read it, never write to it."""
    from medjax.bin.cli import load_config
    from medjax.training import loop

    config = load_config(f"{ROOT / 'configs' / 'phantom.py'}:tiny,steps=4")
    config.data.dir, config.data.modalities.image.size = str(phantom_dir), 32
    return _once("phantom_run", lambda workdir: loop.run(config, workdir))


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """What one file compiled, no other file runs; kept, it fills gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(0)


@pytest.fixture
def gcs(monkeypatch):
    """A bucket named "bucket" on a server of this process, which gcsfs and TensorStore take for Google's."""
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # read when gcsfs is imported
    retry = pytest.importorskip("gcsfs.retry")
    import asyncio
    from types import SimpleNamespace

    import gcsfs
    from etils.epath import backend
    from fake_gcs import FakeGcs

    def forget():
        gcsfs.GCSFileSystem.clear_instance_cache()
        backend.fsspec_backend._get_filesystem.cache_clear()

    monkeypatch.setattr(retry, "asyncio", SimpleNamespace(sleep=lambda seconds: asyncio.sleep(0)))  # seconds otherwise
    server = FakeGcs("bucket")
    for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
        monkeypatch.setenv(name, server.url)
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
    forget()
    yield server
    server.stop()
    forget()
