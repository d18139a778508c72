"""Encoders beside the same architecture in PyTorch: the same weights and inputs, each contestant in its own process."""

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medjax.benchmarks.process import Result, measure
from medjax.errors import UserError, suggest

Call = Callable[[], float]
_MATRIX = 2048


@dataclass(frozen=True)
class Encoder:
    """An architecture at one size.

    model: of `transformers`, with `options` of its configuration. shape: of one input, pictures channels last, or the
    number of tokens. rows: the batch. flops: of the forward pass for a row, by hand (a multiplication and an addition
    are two); the training step counts three times that.
    """

    name: str
    model: str
    options: tuple[tuple[str, Any], ...]
    shape: tuple[int, ...]
    rows: int
    flops: float


def _transformer_flops(tokens: int, width: int, depth: int, inputs: int = 0) -> float:
    """Of blocks with an MLP four times as wide, and of an embedding of `inputs` numbers a token."""
    return tokens * depth * (24 * width**2 + 4 * tokens * width) + 2 * tokens * inputs * width


def _vit(name: str, width: int, depth: int, heads: int, rows: int) -> Encoder:
    options = dict(hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=4 * width)
    flops = _transformer_flops(197, width, depth, 768)
    return Encoder(name, "ViT", tuple(options.items()), (224, 224, 3), rows, flops)


def _resnet(name: str, depths: tuple[int, ...], layer_type: str, widths: tuple[int, ...], flops: float) -> Encoder:
    options = dict(depths=list(depths), layer_type=layer_type, hidden_sizes=list(widths))
    return Encoder(name, "ResNet", tuple(options.items()), (224, 224, 3), 8, flops)


_BERT = dict(attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0)
SUITE = (
    _vit("vit_s16", 384, 12, 6, 8),
    _vit("vit_b16", 768, 12, 12, 8),
    _vit("vit_l16", 1024, 24, 16, 8),
    Encoder("bert_base", "Bert", tuple(_BERT.items()), (64,), 8, _transformer_flops(64, 768, 12)),
    # Multiplications of torchvision's models at 224 pixels, 1.81 and 4.09 billion.
    _resnet("resnet18", (2, 2, 2, 2), "basic", (64, 128, 256, 512), 2 * 1.81e9),
    _resnet("resnet50", (3, 4, 6, 3), "bottleneck", (256, 512, 1024, 2048), 2 * 4.09e9),
)
# What a CPU gets through in a few minutes.
DEFAULT = ("vit_s16", "bert_base", "resnet18")


def chosen(only: list[str], rows: int | None = None) -> list[Encoder]:
    """The encoders named in `only`, `DEFAULT` if it is empty, with another batch if one is given.

    Raises:
      UserError: an unknown name.
    """
    known = [e.name for e in SUITE]
    for name in only:
        if name not in known:
            raise UserError(f"--only names the unknown encoder {name!r}; {suggest(name, known)}")
    return [replace(e, rows=rows or e.rows) for e in SUITE if e.name in (only or DEFAULT)]


def compare(e: Encoder, dtype: str, calls: int, report: Callable[[str], None] = lambda line: None) -> list[dict]:
    """Measures forward pass and training step of both contestants in turn.

    dtype: of the computation, float32 or bfloat16. Returns two rows of the table: what was measured of each side, or
    under `missing` why nothing was; where both ran `times_faster` and `loss_difference`; `share` of the rate at which
    this machine multiplies large matrices in JAX (model FLOPs utilisation against the measured rate).
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        report(f"{e.name}: weights ...")
        write_weights(e, Path(folder))
        rate = measure(partial(_matrix_product, dtype), calls)
        for what in ("forward", "step"):
            row: dict = {"name": e.name, "rows": e.rows, "what": what, "dtype": dtype}
            results = {}
            for side, make in (("ours", _ours), ("theirs", _theirs)):
                report(f"{e.name}: {what}, {side} ...")
                result = measure(partial(make, folder, e, what, dtype), calls)
                row[side] = {"missing": result} if isinstance(result, str) else result._asdict()
                if isinstance(result, Result):
                    results[side] = result
            flops = e.flops * e.rows * (3 if what == "step" else 1)
            if "ours" in results and isinstance(rate, Result):
                row["share"] = flops / results["ours"].seconds / (2 * _MATRIX**3 / rate.seconds)
            if len(results) == 2:
                row["times_faster"] = results["theirs"].seconds / results["ours"].seconds
                row["loss_difference"] = abs(results["theirs"].loss / results["ours"].loss - 1)
                report(f"{e.name}: {what}: {row['times_faster']:.2f} times faster")
            rows.append(row)
    return rows


def write_weights(e: Encoder, folder: Path) -> None:
    """A random model of the architecture as `transformers` saves it."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    config = getattr(transformers, f"{e.model}Config")(**dict(e.options))
    getattr(transformers, f"{e.model}Model")(config).save_pretrained(folder)


def inputs(e: Encoder) -> np.ndarray:
    """Pictures float32[rows, H, W, C], or tokens int32[rows, L], the same every time."""
    rng = np.random.default_rng(0)
    if len(e.shape) == 1:
        return rng.integers(1000, 20000, (e.rows, *e.shape)).astype(np.int32)
    return rng.standard_normal((e.rows, *e.shape), np.float32)


def _ours(folder: str, e: Encoder, what: str, dtype: str) -> Call:
    import dataclasses

    import jax
    import jax.numpy as jnp
    import optax

    from medjax.convert import load_pretrained

    module, variables = load_pretrained(folder)
    module = module.clone(config=dataclasses.replace(module.config, dtype=dtype))
    x, params = jnp.asarray(inputs(e)), variables.pop("params")

    def loss(params, stats, train):
        out, stats = module.apply({"params": params, **stats}, x, train=train, mutable=list(stats))
        return jnp.mean(out.pooled.astype(jnp.float32) ** 2), stats

    if what == "forward":
        forward = jax.jit(lambda p, s: loss(p, s, False)[0])
        return lambda: float(forward(params, variables))
    optimizer = optax.adamw(1e-5)

    def step(params, stats, state):
        (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(params, stats, True)
        updates, state = optimizer.update(gradient, state, params)
        return value, optax.apply_updates(params, updates), stats, state

    step = jax.jit(step, donate_argnums=(0, 1, 2))
    carry = [params, variables, jax.jit(optimizer.init)(params)]

    def call() -> float:
        value, *carry[:] = step(*carry)
        return float(jax.block_until_ready((value, carry))[0])

    return call


def _theirs(folder: str, e: Encoder, what: str, dtype: str) -> Call:
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = getattr(transformers, f"{e.model}Model").from_pretrained(folder).to(device).train(what == "step")
    run = torch.compile(model) if device == "cuda" else model
    x = torch.tensor(inputs(e), device=device)
    given = {"input_ids": x.long()} if len(e.shape) == 1 else {"pixel_values": x.permute(0, 3, 1, 2).contiguous()}
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5, weight_decay=1e-4, fused=True)

    def loss():
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            return run(**given).pooler_output.float().square().mean()

    def forward() -> float:
        with torch.inference_mode():
            return loss().item()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        optimizer.step()
        return value.item()

    return forward if what == "forward" else step


def _matrix_product(dtype: str) -> Call:
    """One large product: what the machine can do."""
    import jax
    import jax.numpy as jnp

    x = jax.random.normal(jax.random.key(0), (_MATRIX, _MATRIX), jnp.dtype(dtype)) / math.sqrt(_MATRIX)
    product = jax.jit(lambda a: a @ a)
    return lambda: float(jax.block_until_ready(product(x))[0, 0])
