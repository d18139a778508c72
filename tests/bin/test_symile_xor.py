"""The exclusive-or experiment: Symile solves it, pairs of modalities do not, and its binary says so."""

import functools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from medjax.benchmarks import symile_xor
from medjax.bin.cli import load_config
from medjax.config import build
from medjax.errors import UserError

ROOT = Path(__file__).parents[2]


def experiment(argument, **changes):
    config = load_config(f"{ROOT / 'configs' / 'symile_xor.py'}:{argument}")
    config.update(changes)
    return build(symile_xor.Experiment, config, "config")


@functools.cache
def found(argument, objective, p=1.0):
    return jax.device_get(symile_xor.run(experiment(argument), objective, p))


def test_symile_finds_what_pairs_cannot():
    symile, pairwise = (found("epochs=15", name) for name in symile_xor.OBJECTIVES)
    assert symile.accuracy >= 0.99
    assert pairwise.accuracy <= 0.06  # chance is 1/32
    # log N - loss approaches the total correlation, 5 log 2, from below.
    assert 5 * math.log(2) - 0.15 < math.log(1000) - symile.loss < 5 * math.log(2) + 0.02


def test_half_an_exclusive_or_is_solved_to_about_half():
    result = found("epochs=15", "symile", 0.5)
    assert abs(result.accuracy - experiment("").optimum(0.5)) < 0.03
    assert experiment("").optimum(0.5) == 0.5 + 0.5 / 32


@pytest.mark.parametrize("variant", ["eight", "missing"])
def test_the_variants_are_solved(variant):
    assert found(f"variant={variant},epochs=15", "symile").accuracy >= 0.99
    assert found(f"variant={variant},epochs=15", "pairwise").accuracy < 0.75  # chance is a half
