"""Checkpoints without a config.json, known by the names of their weights: what training code writes.

Of MGCA (`img_encoder_q.model.`), BioViL (`encoder.encoder.`), MoCo (`module.encoder_q.`) and the like: an encoder of
pictures with torchvision's or timm's names behind a prefix, beside what it was trained with.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from medjax.convert import timm
from medjax.convert.layout import Layout
from medjax.convert.resnet import with_counters
from medjax.errors import UserError

log = logging.getLogger("medjax")

# The first and last weights by which an encoder is found.
_RESNET = ("conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight")
_VIT = ("patch_embed.proj.weight", "pos_embed", "blocks.0.attn.qkv.weight")
# Copies that trail the trained encoder: MoCo's keys, DINO's and BYOL's teachers.
_TRAILING = ("encoder_k", "momentum", "teacher", "target", "ema")


def find(directory: Path, state: Mapping[str, np.ndarray]) -> tuple[Layout, dict[str, np.ndarray]]:
    """The layout of the one encoder in a state, and its part of it without the prefix.

    Raises:
      UserError: there is none, or there are several.
    """
    found = {prefix: make for make, marks in ((_resnet, _RESNET), (_vit, _VIT)) for prefix in _prefixes(state, marks)}
    trained = {prefix for prefix in found if not any(word in prefix for word in _TRAILING)} or set(found)
    if not trained:
        raise UserError(
            f"{directory} has neither a config.json nor weights named as torchvision's ResNets or timm's ViTs; "
            "copy the config.json that was published with them"
        )
    if len(trained) > 1:
        raise UserError(f"{directory} holds several encoders ({', '.join(sorted(trained))}); keep one in the file")
    (prefix,) = trained
    own = {key.removeprefix(prefix): x for key, x in state.items() if key.startswith(prefix)}
    if len(own) < len(state):
        log.info("%s: only %s* is read, and %d other tensors are left out", directory, prefix, len(state) - len(own))
    return found[prefix](own)


def _prefixes(state: Mapping[str, np.ndarray], marks: tuple[str, ...]) -> list[str]:
    prefixes = (key.removesuffix(marks[0]) for key in state if key.endswith(marks[0]))
    return [prefix for prefix in prefixes if all(prefix + mark in state for mark in marks)]


def _resnet(state: dict[str, np.ndarray]) -> tuple[Layout, dict[str, np.ndarray]]:
    return timm.resnet({key: x.shape for key, x in state.items()}), with_counters(state)


def _vit(state: dict[str, np.ndarray]) -> tuple[Layout, dict[str, np.ndarray]]:
    return timm.vit({}, {key: x.shape for key, x in state.items()}), state
