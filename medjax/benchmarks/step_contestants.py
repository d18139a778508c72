"""A pair of towers and its training step, by medjax and by open_clip, from the same weights and inputs.

Every maker imports what it needs itself: a process holds one contestant and its libraries, and no other.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

LR, DECAY, BETAS, EPS = 1e-4, 0.1, (0.9, 0.98), 1e-6
WEIGHTS = "open_clip_model.safetensors"


@dataclass(frozen=True)
class Pair:
    """An open_clip architecture at one size. image, text: width, depth and heads. rows: the global batch."""

    name: str
    image: tuple[int, int, int]
    text: tuple[int, int, int]
    rows: int
    size: int = 224
    patch: int = 16
    tokens: int = 77
    vocabulary: int = 49408
    embed_dim: int = 512

    @property
    def config(self) -> dict[str, Any]:
        """`model_cfg` of open_clip."""
        (width, depth, heads), (text_width, text_depth, text_heads) = self.image, self.text
        vision = dict(image_size=self.size, patch_size=self.patch, width=width, layers=depth, head_width=width // heads)
        text = dict(context_length=self.tokens, vocab_size=self.vocabulary)
        text |= dict(width=text_width, layers=text_depth, heads=text_heads)
        return dict(embed_dim=self.embed_dim, vision_cfg=vision, text_cfg=text)


def write_weights(p: Pair, folder: Path) -> None:
    """A random model of open_clip, as it saves one; where it is not installed nothing is written."""
    try:
        model = _their_model(p)
    except ModuleNotFoundError:
        return
    from safetensors.torch import save_file

    save_file({k: x.contiguous() for k, x in model.state_dict().items()}, folder / WEIGHTS)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": p.config, "preprocess_cfg": {}}))


def inputs(p: Pair) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures float32[rows, H, W, 3], tokens int32[rows, L] and their number int32[rows], the same every time."""
    rng = np.random.default_rng(0)
    pictures = rng.standard_normal((p.rows, p.size, p.size, 3), np.float32)
    lengths = rng.integers(4, p.tokens + 1, p.rows)
    tokens = rng.integers(1, p.vocabulary - 2, (p.rows, p.tokens))
    at = np.arange(p.tokens)[None]
    tokens = np.where(at < lengths[:, None], tokens, 0)
    tokens[np.arange(p.rows), lengths - 1] = p.vocabulary - 1  # the end, which has the largest number
    return pictures, tokens.astype(np.int32), lengths.astype(np.int32)


@dataclass(frozen=True)
class Contestant:
    """step: one update, which returns its loss. tell: what else is known after the last."""

    step: Callable[[], float]
    tell: Callable[[], dict[str, Any]]

    def __call__(self) -> float:
        return self.step()

    def facts(self) -> dict[str, Any]:
        """See `medjax.benchmarks.process.Result`."""
        return self.tell()


def on_cpu(folder: str, p: Pair, dtype: str, devices: int, place: tuple[str, int, int] | None) -> Contestant:
    """Ours on so many virtual devices, alone or at a place (coordinator, number, index) among several processes."""
    # With fewer threads than this, collectives of several processes wait for ever.
    os.environ |= {"JAX_PLATFORMS": "cpu", "NPROC": "16"}
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    if place is not None:
        from medjax.sharding import Processes

        Processes(*place).start()
    return ours(folder, p, dtype)


def ours(folder: str, p: Pair, dtype: str) -> Contestant:
    """The trainer's own step, on all devices."""
    import jax
    import optax

    from medjax.models.partitioning import axis_rules
    from medjax.sharding import ACTIVATION_RULES, MeshConfig, make_mesh, to_global
    from medjax.sharding.chips import chip_of
    from medjax.training.flops import model_flops
    from medjax.training.metrics import memory_peak
    from medjax.training.optimizer import OptimizerConfig, make_optimizer
    from medjax.training.state import StateFactory
    from medjax.training.step import make_train_step

    if not (Path(folder) / WEIGHTS).is_file():
        raise ModuleNotFoundError(name="open_clip")  # which has the weights that all start from
    method, params = _our_model(folder, p, dtype)
    rate = optax.constant_schedule(LR)
    options = dict(weight_decay=DECAY, b1=BETAS[0], b2=BETAS[1], eps=EPS, clip_norm=0.0)
    tx = make_optimizer(OptimizerConfig(**options), rate)
    mesh = make_mesh(MeshConfig())
    with jax.set_mesh(mesh), axis_rules(ACTIVATION_RULES):
        batch = to_global(_batch(p), mesh)
        factory = StateFactory(method, tx, mesh, batch)
        state = factory.fresh(0)
        made = jax.tree.map(
            lambda x, old: jax.make_array_from_callback(old.shape, old.sharding, lambda i: np.asarray(x)[i]),
            params,
            state.params,
        )
        carry = [replace(state, params=made)]
        flops = model_flops(method, state.params, state.method, batch)
    update = make_train_step(method, tx, rate, 0)

    def step() -> float:
        with jax.set_mesh(mesh), axis_rules(ACTIVATION_RULES):
            carry[0], metrics = update(carry[0], batch)
            jax.block_until_ready(carry[0])
        return float(metrics["train/loss"])

    def tell() -> dict[str, Any]:
        chip = chip_of(jax.devices()[0].device_kind)
        peak = chip.flops * mesh.size if chip else None
        return {"flops": flops, "peak": peak, "device_peak": memory_peak(), "device": jax.devices()[0].device_kind}

    return Contestant(step, tell)


def _batch(p: Pair):
    """This process's rows."""
    import jax

    from medjax.data.batch import Batch, Items

    rows = p.rows // jax.process_count()
    here = slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)
    pictures, tokens, lengths = (x[here, None] for x in inputs(p))
    there = np.ones((rows, 1), bool)
    items = {"image": Items(pictures, there), "text": Items({"tokens": tokens, "lengths": lengths}, there)}
    ids = {name: np.zeros((rows, 2), np.uint32) for name in ("example", "group", "patient", "text")}
    row = np.arange(here.start, here.stop, dtype=np.int32)
    return Batch(items, ids, np.zeros(rows, np.float32), np.ones(rows, bool), {}, row)


def _our_model(folder: str, p: Pair, dtype: str):
    """The contrastive method of these towers, and its parameters as NumPy arrays."""
    import dataclasses

    import jax

    from medjax.convert import load_pretrained
    from medjax.methods.contrastive import Contrastive, ContrastiveConfig
    from medjax.methods.pooling import Pooling
    from medjax.methods.terms import Terms
    from medjax.methods.towers import Towers

    pair, variables = load_pretrained(folder)
    given = jax.tree.map(np.asarray, variables["params"])
    modules = {m: getattr(pair, m) for m in ("image", "text")}
    modules = {m: x.clone(config=dataclasses.replace(x.config, dtype=dtype)) for m, x in modules.items()}
    objectives, modalities = {"info_nce": {}}, ("image", "text")
    config = ContrastiveConfig({m: {} for m in modalities}, objectives, p.embed_dim)
    terms, pooling = Terms.create(objectives, modalities), Pooling.create({}, modalities)
    heads = {m: {"out": {"kernel": given[f"{m}_projection_0"]["kernel"]}} for m in modalities}
    params = {
        "towers": {m: given[m] for m in modalities},
        "heads": heads,
        "objectives": {"info_nce": {"log_scale": given["logit_scale"]}},
    }
    return Contrastive(config, Towers(modules), terms, pooling), params


def _their_model(p: Pair):
    import torch

    from medjax.benchmarks.torchvision_stub import torchvision

    with torchvision():
        from open_clip.model import CLIP
    torch.manual_seed(0)
    return CLIP(**p.config)


def theirs(folder: str, p: Pair, dtype: str) -> Contestant:
    """open_clip's model and loss, with the optimizer of its trainer."""
    import torch
    from safetensors.torch import load_file

    from medjax.benchmarks.contestants import loss_module

    model = _their_model(p)
    model.load_state_dict(load_file(Path(folder) / WEIGHTS))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device).train()
    run = torch.compile(model) if device == "cuda" else model
    pictures, tokens, _ = inputs(p)
    image = torch.tensor(pictures, device=device).permute(0, 3, 1, 2).contiguous()
    text = torch.tensor(tokens, device=device).long()
    plain, decayed = [], []
    for name, x in model.named_parameters():
        (plain if x.ndim < 2 or any(s in name for s in ("bn", "ln", "bias", "logit_scale")) else decayed).append(x)
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": DECAY}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS, fused=True)
    loss_of = loss_module("open_clip").ClipLoss()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = loss_of(*run(image, text))
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
        return loss.item()

    def tell() -> dict[str, Any]:
        return {"device_peak": torch.cuda.max_memory_allocated() if device == "cuda" else 0}

    return Contestant(step, tell)


def matrix_product(dtype: str) -> Contestant:
    """One large product: what the device can do."""
    import jax
    import jax.numpy as jnp

    size = 2048 if jax.default_backend() == "cpu" else 8192
    x = jnp.full((size, size), 1 / size, jnp.dtype(dtype))
    product = jax.jit(lambda a: a @ a)
    return Contestant(lambda: float(jax.block_until_ready(product(x))[0, 0]), lambda: {"flops": 2.0 * size**3})
