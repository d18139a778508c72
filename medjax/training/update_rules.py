"""From a gradient to the direction of an update: what one optimizer does and another does not."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from medjax.errors import UserError
from medjax.training.selection import path_name

# The options of each, with their defaults. b2=0.98 of AdamW is CLIP's (arXiv 2103.00020); the others are those of the
# papers, of Adafactor those of arXiv 2106.04560 (section 3.4), where b2 is the limit of a rate that grows.
OPTIONS: dict[str, dict[str, float]] = {
    "adamw": {"b1": 0.9, "b2": 0.98, "eps": 1e-8},
    "lamb": {"b1": 0.9, "b2": 0.999, "eps": 1e-6},
    "lion": {"b1": 0.9, "b2": 0.99},
    "adafactor": {"momentum": 0.9, "b2": 0.999, "eps": 1e-30, "clip_update_rms": 1.0},
    "muon": {"momentum": 0.95, "b1": 0.9, "b2": 0.98, "eps": 1e-8},
    "sgd": {"momentum": 0.9},
}
# Muon is for the matrices between hidden layers. Of ours these are the kernels inside blocks of attention and MLP;
# those of a convolution are no matrices, and what LoRA adds has too low a rank to be orthogonalised.
_HIDDEN = re.compile(r"(?!lora/).*/blocks/block_\d+/.*/kernel")
_MUON_RMS = 0.2  # of an update, which is about AdamW's, so that learning rate and decay carry over
_FACTORED_FROM = 32  # columns or rows, from which Adafactor keeps sums of them only


def direction(name: str, options: Mapping[str, float], mu_dtype: jax.typing.DTypeLike) -> optax.GradientTransformation:
    """What the learning rate multiplies, before weight decay.

    options: all of `OPTIONS[name]`. mu_dtype: of the first moment, or momentum.

    "adamw": Adam (arXiv 1412.6980). "lamb": the same; `after_decay` does the rest. "lion": arXiv 2302.06675.
    "adafactor": second moments as sums of rows and columns (arXiv 1804.04235) with a momentum, and without the scaling
    by parameters (arXiv 2106.04560). "muon": momentum with Nesterov's step, orthogonalised by Newton-Schulz
    (kellerjordan.github.io/posts/muon), times `0.2 * sqrt(max(rows, columns))` (arXiv 2502.16982, equation 4); Adam for
    all that is no hidden matrix. "sgd": momentum.
    """
    return _DIRECTIONS[name](options, mu_dtype)


def after_decay(name: str) -> list[optax.GradientTransformation]:
    """What comes between weight decay and the learning rate: of LAMB (arXiv 1904.00962) the ratio of norms."""
    return [optax.scale_by_trust_ratio()] if name == "lamb" else []


def _adam(o: Mapping[str, float], mu_dtype) -> optax.GradientTransformation:
    return optax.scale_by_adam(o["b1"], o["b2"], o["eps"], mu_dtype=mu_dtype)


def _lion(o: Mapping[str, float], mu_dtype) -> optax.GradientTransformation:
    return optax.scale_by_lion(o["b1"], o["b2"], mu_dtype=mu_dtype)


def _adafactor(o: Mapping[str, float], mu_dtype) -> optax.GradientTransformation:
    def rate(step, exponent):
        return jnp.minimum(1.0 - (step + 1.0) ** -exponent, o["b2"])

    second = optax.scale_by_factored_rms(min_dim_size_to_factor=_FACTORED_FROM, epsilon=o["eps"], decay_rate_fn=rate)
    clip = [optax.clip_by_block_rms(o["clip_update_rms"])] if o["clip_update_rms"] else []
    first = [optax.ema(o["momentum"], debias=False, accumulator_dtype=mu_dtype)] if o["momentum"] else []
    return optax.chain(second, *clip, *first)


def _muon(o: Mapping[str, float], mu_dtype) -> optax.GradientTransformation:
    def axes(updates):
        return jax.tree.map(lambda _: MuonDimensionNumbers(0, 1), updates)

    orthogonal = optax.chain(
        scale_by_muon(beta=o["momentum"], mu_dtype=mu_dtype, weight_dimension_numbers=axes),
        optax.stateless(lambda updates, _: jax.tree.map(lambda u: _MUON_RMS * max(u.shape) ** 0.5 * u, updates)),
    )
    return optax.partition({"matrices": orthogonal, "others": _adam(o, mu_dtype)}, _muon_labels)


def _muon_labels(params: Any) -> Any:
    def one(path, x):
        return "matrices" if x.ndim == 2 and _HIDDEN.fullmatch(path_name(path)) else "others"

    labels = jax.tree_util.tree_map_with_path(one, params)
    if "matrices" not in jax.tree.leaves(labels):
        raise UserError(
            "config.optimizer.name='muon' is for matrices inside the blocks of transformers, and none is trained; use "
            "'adamw'"
        )
    return labels


def _sgd(o: Mapping[str, float], mu_dtype) -> optax.GradientTransformation:
    return optax.trace(o["momentum"], accumulator_dtype=mu_dtype)


_DIRECTIONS: dict[str, Callable[[Mapping[str, float], Any], optax.GradientTransformation]] = {
    "adamw": _adam,
    "lamb": _adam,
    "lion": _lion,
    "adafactor": _adafactor,
    "muon": _muon,
    "sgd": _sgd,
}
