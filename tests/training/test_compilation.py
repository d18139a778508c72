"""What one process compiled, another need not compile again."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from medjax.training.compilation import default_cache, keep_compiled

ROOT = Path(__file__).parents[2]
PROGRAM = """
import jax, jax.numpy as jnp
from medjax.training.compilation import default_cache, keep_compiled
counts = {}
jax.monitoring.register_event_listener(lambda event, **_: counts.update({event: counts.get(event, 0) + 1}))
assert keep_compiled(default_cache())
f = jax.jit(jax.value_and_grad(lambda x: jnp.tanh(x @ x.T).sum()))
value, _ = f(jnp.ones((16, 16)))
asked, found = (counts.get(f"/jax/compilation_cache/{x}", 0) for x in ("compile_requests_use_cache", "cache_hits"))
print(asked, found, float(value))
"""


@pytest.fixture
def settings():
    """Puts JAX's settings back."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_enable_xla_caches")
    before = {name: getattr(jax.config, name) for name in names}
    yield before
    for name, value in before.items():
        jax.config.update(name, value)


def _run(home: Path) -> tuple[int, int, float]:
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"XDG_CACHE_HOME": str(home), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=True)
    asked, found, value = done.stdout.split()
    return int(asked), int(found), float(value)


@pytest.mark.end_to_end
def test_a_second_process_compiles_nothing(tmp_path):
    first, second = _run(tmp_path), _run(tmp_path)
    assert first[0] > 0 and first[1] < first[0]
    assert second == (first[0], first[0], first[2])
    assert list((tmp_path / "medjax" / "compiled").glob("*/*"))


def test_a_folder_that_was_given_to_jax_is_used_and_an_empty_one_keeps_nothing(settings, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "given"))
    assert keep_compiled(default_cache())
    assert (tmp_path / "given").is_dir() and jax.config.jax_compilation_cache_dir == str(tmp_path / "given")
    assert not keep_compiled("")
    assert jax.config.jax_compilation_cache_dir is None


def test_a_folder_that_cannot_be_written_is_no_reason_not_to_train(settings, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level("WARNING", "medjax"):
        assert not keep_compiled(str(tmp_path / "file" / "cache"))
    assert "compiled programs are not kept" in caplog.text
