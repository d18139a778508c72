"""The real TPU compiler, on a machine without one: memory and collectives of the contrastive loss on whole slices."""

import functools
import importlib.util
import json
import os
import subprocess
import sys

import pytest

WIDTH = 512
GB = 1e9

pytestmark = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")

# libtpu belongs to one process at a time and cannot follow the CPU devices of this one: each compilation is a child.
_CHILD = """
import json, re, sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from medjax import losses

topology, rows, width, dtype, impl, block = json.loads(sys.argv[1])
devices = np.array(topologies.get_topology_desc(topology, "tpu").devices)
mesh = jax.sharding.Mesh(devices, ("replica",))
objective = losses.get("info_nce", impl=impl, block=block)
split, same = jax.NamedSharding(mesh, jax.P("replica")), jax.NamedSharding(mesh, jax.P())
z = {m: jax.ShapeDtypeStruct((rows * len(devices), width), dtype, sharding=split) for m in "ab"}
scale = jax.ShapeDtypeStruct((), jnp.float32, sharding=same)


def loss(z, scale):
    return objective(z, logit_scale=scale, batch_axes=("replica",)).mean()


with jax.set_mesh(mesh):
    compiled = jax.jit(
        jax.value_and_grad(loss, (0, 1)), out_shardings=(same, ({m: split for m in "ab"}, same))
    ).lower(z, scale).compile()
text = compiled.as_text()
kinds = r"(all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute)"
calls = re.findall(r"= (.+?) " + kinds + r"(?:-start)?\\(", text)
products = re.findall(r"convolution\\(.*", text)
memory = compiled.memory_analysis()
print(json.dumps({
    "devices": len(devices),
    "peak": memory.peak_memory_in_bytes,  # on the chip and off it
    "hbm": memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes,
    "collectives": sorted({kind for _, kind in calls}),
    "embeddings": sorted({kind for shape, kind in calls if f",{width}]" in shape}),
    "products": len(products),
    "highest": sum("operand_precision={highest,highest}" in line for line in products),
}))
"""


@functools.cache
def compile_on(topology: str, rows: int, dtype: str = "float32", impl: str = "ring", block: int = 1024) -> dict:
    """Value and gradient of `info_nce` with `rows` rows on every device, compiled for a slice that is not there."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    environment.pop("JAX_DISABLE_MOST_OPTIMIZATIONS", None)
    arguments = json.dumps([topology, rows, WIDTH, dtype, impl, block])
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_ring_never_gathers_the_embeddings_and_float32_products_are_exact():
    program = compile_on("v5e:2x4", 1024, block=512)
    assert program["embeddings"] == ["collective-permute"]
    assert "all-gather" not in program["collectives"]
    assert program["highest"] == program["products"] > 0


@pytest.mark.slow
def test_gather_gathers_the_embeddings_and_scatters_their_gradient():
    program = compile_on("v5e:2x4", 1024, impl="gather", block=512)
    assert "all-gather" in program["embeddings"]
    # The compiler may write a reduce-scatter as an all-reduce and a slice.
    assert {"reduce-scatter", "all-reduce"} & set(program["embeddings"])


@pytest.mark.slow
def test_bfloat16_products_take_the_fast_path():
    program = compile_on("v5e:2x4", 16384, "bfloat16")
    assert program["products"] > 0
    assert program["highest"] == 0
    assert program["peak"] <= 0.18 * GB
    assert program["hbm"] <= 0.11 * GB


@pytest.mark.slow
def test_ring_memory_depends_on_the_local_batch_alone():
    few, many = compile_on("v5e:2x4", 16384), compile_on("v5e:16x16", 16384)
    assert (few["devices"], many["devices"]) == (8, 256)
    assert few["peak"] <= 0.26 * GB
    assert abs(many["peak"] / few["peak"] - 1) <= 0.02
    assert abs(many["hbm"] / few["hbm"] - 1) <= 0.02


@pytest.mark.slow
def test_a_million_rows_fit_on_256_devices_in_a_tenth_of_a_gigabyte():
    assert compile_on("v5e:16x16", 4096)["peak"] <= 0.1 * GB


@pytest.mark.slow
def test_ring_compiles_on_a_three_dimensional_torus():
    program = compile_on("v5p:4x4x4", 4096)
    assert program["devices"] == 64
    assert program["embeddings"] == ["collective-permute"]
    assert program["peak"] <= 0.1 * GB
