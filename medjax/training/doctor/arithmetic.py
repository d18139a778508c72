"""Whether objectives on this mesh are those of the formulas, and how fast matrices are multiplied."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from medjax import losses
from medjax.sharding import BATCH_AXES, batch_sharding, replicated
from medjax.sharding.chips import chip_of
from medjax.training.doctor.findings import Finding, Status

_WIDTH, _ROWS, _CUBE = 32, 64, 512
_SCALE, _BIAS = 5.0, -3.0
_DIRECTIONS = 3
_STEP = 1e-5
_VALUE, _SLOPE = 1e-5, 1e-4  # relative; sums of float32 products
Arrays = dict[str, np.ndarray]


def _cross_entropy(logits: np.ndarray, smoothing: float = 0.0) -> float:
    """Mean over rows; the answer is on the diagonal. logits: float64[n, k]."""
    top = logits.max(1)
    lse = top + np.log(np.exp(logits - top[:, None]).sum(1))
    return float(np.mean(lse - (1 - smoothing) * np.diagonal(logits) - smoothing * logits.mean(1)))


def _info_nce(z: Arrays, scale: float) -> float:
    logits = scale * z["a"] @ z["b"].T
    return (_cross_entropy(logits) + _cross_entropy(logits.T)) / 2


def _sigmoid(z: Arrays, scale: float) -> float:
    logits = scale * z["a"] @ z["b"].T + _BIAS
    return float(np.logaddexp(0, np.where(np.eye(len(logits), dtype=bool), -logits, logits)).sum() / len(logits))


def _gram(z: Arrays, scale: float) -> float:
    a, b, c = (z[m] for m in "abc")
    n = len(a)
    matrix = np.empty((n, n, 3, 3))
    matrix[..., 0, 0] = (a * a).sum(1)[:, None]
    for i, x in ((1, b), (2, c)):
        matrix[..., 0, i] = matrix[..., i, 0] = a @ x.T
        for j, y in ((1, b), (2, c)):
            matrix[..., i, j] = (x * y).sum(1)[None]
    logits = -scale * np.sqrt(np.linalg.det(matrix))
    return (_cross_entropy(logits, 0.1) + _cross_entropy(logits.T, 0.1)) / 2


def _symile(z: Arrays, scale: float) -> float:
    total = 0.0
    for anchor, x, y in ("abc", "bac", "cab"):
        tuples = (z[x][:, None] * z[y][None]).reshape(-1, _WIDTH)
        logits = scale * z[anchor] @ tuples.T
        n = len(logits)
        own = np.arange(n) * (n + 1)
        order = np.concatenate([own, np.setdiff1d(np.arange(n * n), own)])  # aligned tuples on the diagonal
        total += _cross_entropy(logits[:, order]) / 3
    return total


@dataclass(frozen=True)
class Formula:
    """An objective, and the paper's formula of it in float64 with every number stored."""

    name: str
    modalities: str
    options: dict[str, Any]
    reference: Callable[[Arrays, float], float]
    bias: float | None = None


FORMULAS = (
    Formula("info_nce", "ab", {}, _info_nce),
    Formula("sigmoid", "ab", {}, _sigmoid, _BIAS),
    Formula("gram", "abc", {"anchor": "a"}, _gram),
    Formula("symile", "abc", {"negatives": "n_squared"}, _symile),
)


def objectives(mesh: Mesh) -> Iterator[Finding]:
    """Value and slopes of every formula on the mesh, however its tiles travel, against float64."""
    n = int(np.prod([mesh.shape[a] for a in BATCH_AXES]))
    rows = n * -(-_ROWS // n)
    for formula in FORMULAS:
        if formula.name == "symile" and rows > _CUBE:
            continue
        z, directions = _inputs(formula, rows)
        want = [formula.reference(z, _SCALE), *(_slope(formula, z, d) for d in directions)]
        wrong = []
        for impl in ("ring", "gather"):
            got = _on_mesh(formula, impl, z, directions, mesh)
            value = abs(got[0] / want[0] - 1)
            slope = np.abs(got[1:] - want[1:]).max() / np.abs(want[1:]).max()
            if not (value < _VALUE and slope < _SLOPE):
                wrong.append(f"{impl}: value off by {value:.0e}, gradient by {slope:.0e}")
        found = "; ".join(wrong) or f"value and gradient as in float64, over {n} parts of the batch"
        advice = (
            "do not train on these devices: collectives or products give wrong numbers; try another jaxlib or driver"
        )
        yield Finding(f"loss {formula.name}", Status.FAIL if wrong else Status.OK, found, advice)


def _inputs(formula: Formula, rows: int) -> tuple[Arrays, list[tuple[Arrays, float]]]:
    """Unit vectors, and directions to differentiate along: of the embeddings, and of the scale."""
    rng = np.random.default_rng(0)
    z = {m: rng.standard_normal((rows, _WIDTH)) for m in formula.modalities}
    z = {m: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for m, x in z.items()}
    directions = [
        ({m: rng.standard_normal(x.shape).astype(np.float32) for m, x in z.items()}, 0.0) for _ in range(_DIRECTIONS)
    ]
    return z, [*directions, ({m: np.zeros_like(x) for m, x in z.items()}, float(np.sqrt(rows)))]


def _slope(formula: Formula, z: Arrays, direction: tuple[Arrays, float]) -> float:
    """Central difference, exact to about the square of the step."""
    along, scale = direction

    def at(step: float) -> float:
        return formula.reference(
            {m: x + step * along[m].astype(np.float64) for m, x in z.items()}, _SCALE + step * scale
        )

    return (at(_STEP) - at(-_STEP)) / (2 * _STEP)


def _on_mesh(formula: Formula, impl: str, z: Arrays, directions: list, mesh: Mesh) -> np.ndarray:
    """float64[1 + directions], the value and the slopes."""
    objective = losses.get(formula.name, modalities=tuple(formula.modalities), impl=impl, block=16, **formula.options)
    more = {} if formula.bias is None else {"logit_bias": jnp.float32(formula.bias)}

    def loss(z, scale):
        return objective(z, logit_scale=scale, batch_axes=BATCH_AXES, **more).mean()

    def both(z, scale, along):
        value, gradient = jax.value_and_grad(loss, (0, 1))(z, scale)
        slopes = [sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, d))) for d in along]
        return jnp.stack([value, *slopes])

    def spread(x: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(x.shape, batch_sharding(mesh), lambda index: x[index])

    given = (
        jax.tree.map(spread, z),
        np.float32(_SCALE),
        [(jax.tree.map(spread, d), np.float32(s)) for d, s in directions],
    )
    with jax.set_mesh(mesh):
        out = jax.jit(both, out_shardings=replicated(mesh))(*given)
    return np.asarray(out.addressable_data(0), np.float64)


def products() -> Iterator[Finding]:
    """FLOP/s of a large matrix product on this process's first device, beside its data sheet's."""
    device = jax.local_devices()[0]
    chip = chip_of(device.device_kind)
    size = 1024 if device.platform == "cpu" else 8192
    rates = {dtype: _rate(size, dtype, device) for dtype in ("bfloat16", "float32")}
    found = ", ".join(f"{dtype} {rate / 1e12:.3g} TFLOP/s" for dtype, rate in rates.items())
    if chip is None:
        yield Finding("matrix product", Status.OK, f"{found} of {size} x {size}")
        return
    share = rates["bfloat16"] / chip.flops
    advice = "look for other programs on it, its temperature and power limit (nvidia-smi)"
    status = Status.OK if share > 0.5 else Status.WARN
    yield Finding("matrix product", status, f"{found}; bfloat16 is {share:.0%} of the data sheet's", advice)


def _rate(size: int, dtype: str, device: jax.Device) -> float:
    x = jax.device_put(jnp.full((size, size), 1 / size, jnp.dtype(dtype)), device)
    product = jax.jit(lambda a, b: a @ b)
    y = jax.block_until_ready(product(x, x))
    start, calls = time.perf_counter(), 4
    for _ in range(calls):
        y = product(x, y)
    jax.block_until_ready(y)
    return 2 * size**3 * calls / (time.perf_counter() - start)
