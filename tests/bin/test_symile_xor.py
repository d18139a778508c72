"""The exclusive-or experiment: Symile solves it, pairs of modalities do not, and its binary says so."""

import functools
import json
import math
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
def found(argument, objective, p=1.0, **changes):
    """Smaller batches and fewer epochs than the recipe's, to be quick."""
    changes = {"batch_size": 250, "test_sets": 2, **changes}
    return jax.device_get(symile_xor.run(experiment(argument, **changes), objective, p))


def test_symile_finds_what_pairs_cannot():
    symile, pairwise = (found("epochs=5", name) for name in symile_xor.OBJECTIVES)
    assert symile.accuracy >= 0.99
    assert pairwise.accuracy <= 0.06  # chance is 1/32
    # log N - loss approaches the total correlation, 5 log 2, from below.
    assert 5 * math.log(2) - 0.15 < math.log(1000) - symile.loss < 5 * math.log(2) + 0.02


def test_half_an_exclusive_or_is_solved_to_about_half():
    result = found("epochs=5", "symile", 0.5)
    assert abs(result.accuracy - experiment("").optimum(0.5)) < 0.03
    assert experiment("").optimum(0.5) == 0.5 + 0.5 / 32


@pytest.mark.slow
def test_an_exclusive_or_with_missing_modalities_is_found():
    assert found("variant=missing,epochs=5", "symile").accuracy >= 0.99
    assert found("variant=missing,epochs=5", "pairwise").accuracy < 0.75  # chance is a half


@pytest.mark.slow
def test_an_exclusive_or_of_eight_variables_is_found():
    rows = {"train_rows": 1000, "batch_size": 100, "validation_rows": 250, "test_rows": 500}
    assert found("variant=eight,epochs=100", "symile", **rows).accuracy >= 0.99


def test_a_share_p_of_samples_follows_the_exclusive_or():
    data = symile_xor.draw(experiment(""), jax.random.key(1), 20_000, 0.3, missingness=0.0)
    a, b, c = (np.asarray(data[m]).astype(int) for m in "abc")
    follows = np.all(c == a ^ b, axis=1)
    copies = np.all(c == a, axis=1)
    assert np.all(follows | copies)
    assert abs(np.mean(follows & ~copies) - 0.3 * 31 / 32) < 0.015  # four standard deviations
    assert abs(b.mean() - 0.5) < 0.01


def test_missing_values_are_outside_the_support_and_marked():
    data = symile_xor.draw(experiment("variant=missing"), jax.random.key(1), 5_000, 1.0, missingness=0.2)
    for x in data.values():
        value, indicator = np.asarray(x).T
        assert np.array_equal(value == 0.5, indicator == 1)
        assert abs(indicator.mean() - 0.2) < 0.025
    whole = symile_xor.draw(experiment("variant=missing"), jax.random.key(1), 5_000, 1.0, missingness=0.0)
    assert not any(np.any(x[:, 1]) for x in whole.values())


def test_wrong_experiments_are_refused():
    with pytest.raises(UserError, match="variant"):
        experiment("variant=nine")
    with pytest.raises(UserError, match="batch_size"):
        experiment("", batch_size=20_000)


def run(*arguments, recipe="epochs=1"):
    """The binary, with few rows."""
    rows = {"train_rows": 200, "batch_size": 100, "validation_rows": 50, "test_rows": 100, "test_sets": 2}
    command = [sys.executable, "-m", "medjax.bin.symile_xor", f"--config={ROOT / 'configs' / 'symile_xor.py'}:{recipe}"]
    command += [f"--config.{k}={v}" for k, v in rows.items()]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.slow
@pytest.mark.end_to_end
def test_binary_prints_the_curve_and_its_last_line_is_json(tmp_path):
    done = run("--json", f"--output={tmp_path / 'plot.png'}")
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    points = [json.loads(line) for line in lines if line.startswith("{")]
    assert lines[-1] == json.dumps(points[-1])
    assert [list(point) for point in points] == [["p", "symile", "pairwise"]] * 11
    assert [point["p"] for point in points] == [i / 10 for i in range(11)]
    assert all(0 <= point[name] <= 1 for point in points for name in symile_xor.OBJECTIVES)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.end_to_end
def test_binary_runs_one_point(tmp_path):
    done = run("--json", "--p=0.5", f"--output={tmp_path / 'plot.png'}")
    assert json.loads(done.stdout.splitlines()[-1])["p"] == 0.5
    assert not list(tmp_path.iterdir())


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("recipe", "p", "said"), [("epochs=1", 1.5, "between 0 and 1"), ("variant=eight", 0.5, "leave --p out")]
)
def test_binary_refuses_what_is_no_share_or_has_none(recipe, p, said):
    done = run(f"--p={p}", recipe=recipe)
    assert done.returncode != 0 and said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.end_to_end
def test_binary_without_its_recipe_says_what_to_pass(tmp_path):
    command = [sys.executable, "-m", "medjax.bin.symile_xor", "--p=0.5"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode != 0 and done.stderr.splitlines()[-1].endswith("pass --config=PATH/configs/symile_xor.py")
