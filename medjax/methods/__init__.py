"""What a recipe trains: models and losses behind one contract, `medjax.methods.base.Method`."""

from collections.abc import Mapping
from typing import Any

from medjax.errors import UserError, check_choice
from medjax.methods.base import Encoded, Method
from medjax.methods.contrastive import Contrastive
from medjax.methods.masked_autoencoder import MaskedAutoencoder

METHODS: dict[str, type] = {"contrastive": Contrastive, "masked_autoencoder": MaskedAutoencoder}

__all__ = ["METHODS", "Encoded", "Method", "make_method"]


def make_method(options: Mapping[str, Any], specs: Mapping[str, Mapping[str, Any]]) -> Method:
    """The method of `config.method`; specs: the preprocessing of each modality (`Transform.spec`).

    Raises:
      UserError: an unknown method, modality, encoder, objective or option, with the nearest valid one.
    """
    if "name" not in options:
        raise UserError(f"config.method.name is required; valid: {', '.join(sorted(METHODS))}")
    check_choice("method in config.method.name", options["name"], METHODS)
    return METHODS[options["name"]].create(options, specs)
