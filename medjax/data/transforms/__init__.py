"""From raw items to the arrays that encoders take, one transform a kind of modality."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medjax.config import build
from medjax.data.manifest import Manifest
from medjax.data.transforms.base import Transform
from medjax.data.transforms.ecg import EcgConfig, EcgTransform
from medjax.data.transforms.image import ImageConfig, ImageTransform
from medjax.data.transforms.labs import LabsConfig, LabsTransform
from medjax.data.transforms.text import TextConfig, TextTransform
from medjax.data.transforms.volume import VolumeConfig, VolumeTransform
from medjax.errors import UserError, suggest

TRANSFORMS: dict[str, tuple[type, type]] = {
    "image": (ImageConfig, ImageTransform),
    "ecg": (EcgConfig, EcgTransform),
    "labs": (LabsConfig, LabsTransform),
    "text": (TextConfig, TextTransform),
    "volume": (VolumeConfig, VolumeTransform),
}

__all__ = ["TRANSFORMS", "Transform", "make_transforms"]


def make_transforms(modalities: Mapping[str, Any], manifest: Manifest, directory: str | Path) -> dict[str, Transform]:
    """The transform of each modality of `config.data.modalities`, by the kind that the data set gives it.

    Raises:
      UserError: a modality that the data set does not have, or an unknown option.
    """
    out = {}
    for name, options in modalities.items():
        if name not in manifest.modalities:
            raise UserError(f"config.data.modalities.{name}: {manifest.name} has no such modality; "
                            f"{suggest(name, manifest.modalities)}")  # fmt: skip
        schema = manifest.modality(name)
        config_class, transform_class = TRANSFORMS[schema.kind]
        config = build(config_class, options, f"config.data.modalities.{name}")
        out[name] = transform_class.create(config, schema, Path(directory))
    return out
