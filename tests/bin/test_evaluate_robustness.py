"""The robustness program as a user runs it, on a run of a few steps."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.end_to_end
ROOT = Path(__file__).parents[2]


def _run(*arguments: str, status: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "medjax.bin.evaluate_robustness", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == status, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def measured(phantom_run, tmp_path_factory) -> Path:
    """Two corruptions at two levels, and missing modalities."""
    output = tmp_path_factory.mktemp("robustness")
    _run(f"--workdir={phantom_run}", f"--output={output}", "--kinds=noise,jpeg", "--levels=1,5")
    return output


@pytest.mark.slow
def test_corruptions_stand_beside_the_intact_split_and_the_controls(measured):
    found = json.loads((measured / "results.json").read_text())
    assert found["settings"]["kinds"]["image"] == {"jpeg": [50, 30, 15, 10, 7]}
    assert set(found["corruptions"]) == {"ecg", "image", "labs"}
    of = found["corruptions"]["ecg"]
    assert set(of) == {"zero_shot_alone", "zero_shot_together"}
    assert of["zero_shot_alone"]["labels"] == ["atrial_fibrillation", "bundle_branch_block", "st_elevation"]
    for score in of.values():
        assert score["controls"]["chance"] == 0.5 and score["controls"]["untrained"]["value"]
        noise = score["kinds"]["noise"]
        assert set(noise["levels"]) == {"1", "5"} and score["relative"] is None
        mean = np.mean([x["value"] for x in noise["levels"].values()])
        np.testing.assert_allclose(noise["drop"]["value"], score["clean"]["value"] - mean, atol=2e-6)
        assert noise["drop"]["low"] <= noise["drop"]["value"] <= noise["drop"]["high"]
    # What is intact is intact whatever was corrupted.
    clean = [x["zero_shot_together"]["clean"] for x in found["corruptions"].values()]
    assert clean[0] == clean[1] == clean[2]


@pytest.mark.slow
def test_missing_modalities_are_averaged_over_all_subsets(measured):
    found = json.loads((measured / "results.json").read_text())["missing"]["zero_shot"]
    values = {k: v["value"] for k, v in found["emm"]["subsets"].items()}
    assert len(values) == 7 and values["ecg+image+labs"] == found["full"]["value"]
    np.testing.assert_allclose(found["emm"]["averages"]["mean"]["value"], np.mean(list(values.values())), atol=2e-6)
    p, weights = 0.2, {k: 0.2 ** (3 - len(k.split("+"))) * 0.8 ** len(k.split("+")) for k in values}
    expected = sum(weights[k] * v for k, v in values.items()) / (1 - p**3)
    np.testing.assert_allclose(found["emm"]["averages"]["p=0.2"]["value"], expected, atol=2e-6)


@pytest.mark.slow
def test_the_page_shows_an_example_at_each_level(measured):
    text = (measured / "report.html").read_text()
    assert 'alt="ecg of one example' in text and 'alt="image of one example' in text and "haemoglobin" in text
    assert "Synthetic data" in text


@pytest.mark.slow
def test_a_baseline_is_100_to_itself_and_sensitive_data_are_not_shown(measured, phantom_run, phantom_dir, tmp_path):
    data, output = tmp_path / "data", tmp_path / "output"
    shutil.copytree(phantom_dir, data)
    manifest = json.loads((data / "manifest.json").read_text())
    (data / "manifest.json").write_text(json.dumps(manifest | {"sensitive": True}))
    common = (f"--workdir={phantom_run}", "--kinds=jpeg", "--levels=1,5", "--measure=corruptions")
    other = _run(*common, f"--data={data}", f"--output={output}", f"--baseline={measured / 'results.json'}", status=2)
    assert "the list of examples" in other.stderr  # another manifest is another data set
    _run(*common, f"--data={data}", f"--output={output}")
    text = (output / "report.html").read_text()
    assert "marked sensitive" in text and "of one example" not in text
    _run(*common, f"--data={data}", f"--output={output}", f"--baseline={output / 'results.json'}")
    found = json.loads((output / "results.json").read_text())["corruptions"]["image"]["zero_shot_alone"]["relative"]
    assert found["mce"] == 100 and found["be"] == {"jpeg": 1.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--embeddings={run}",), "hold no raw items"),
        pytest.param(("--workdir={run}", "--kinds=jpg"), "did you mean 'jpeg'", marks=pytest.mark.slow),
        pytest.param(("--workdir={run}", "--scores=probe", "--split=train"), "needs labels", marks=pytest.mark.slow),
    ],
)
def test_bad_input_is_one_line(phantom_run, tmp_path, arguments, message):
    table = tmp_path / "theirs.npz"
    np.savez(table, **{f"embedding/{m}": np.ones((4, 2), np.float32) for m in ("image", "text")})
    where = table if "--embeddings={run}" in arguments else phantom_run
    done = _run(*(a.format(run=where) for a in arguments), status=2)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("error: ")
