"""`medjax.bin.explain` as a user runs it: maps in the inputs' geometry, scores with controls, pictures, a page."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import medjax
from medjax.data import manifest as manifests

pytestmark = pytest.mark.end_to_end
ROOT = Path(__file__).parents[2]
SMALL = ("--examples=1", "--findings=consolidation,atrial_fibrillation,anaemia", "--method=gradient_attention")


def _run(*arguments: str, status: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "medjax.bin.explain", *arguments]
    env = dict(os.environ)
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == status, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def explained(phantom_run, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("explained")
    _run(f"--workdir={phantom_run}", f"--output={output}", "--split=train", *SMALL)
    return output


@pytest.mark.slow
def test_maps_have_the_geometry_of_the_inputs(explained, phantom_run):
    dataset = medjax.load(phantom_run).dataset()
    shown = json.loads((explained / "results.json").read_text())["shown"]
    assert {(s["finding"], s["modality"]) for s in shown} == {
        *(("consolidation", m) for m in ("image", "text")),
        *(("atrial_fibrillation", m) for m in ("ecg", "text")),
        *(("anaemia", m) for m in ("labs", "text")),
    }
    for s in shown:
        raw = next(dataset.raw_items("train", [s["row"]]))[s["modality"]][0]
        maps = np.load(explained / "maps" / f"{s['finding']}-{s['modality']}.npz")
        names = ("integrated_gradients" if s["modality"] == "labs" else "gradient_attention",)
        for name in names:
            expected = {"image": (32, 32), "text": (72,)}.get(s["modality"], raw.shape)
            assert maps[f"{name}/{s['row']}"].shape == expected
        assert all((explained / picture).is_file() for picture in s["pictures"]) and s["pictures"]


@pytest.mark.slow
def test_scores_stand_beside_their_controls(explained):
    results = json.loads((explained / "results.json").read_text())
    assert set(results["grounding"]) == {"consolidation"}  # only pictures are marked
    for scores in results["grounding"]["consolidation"].values():
        assert set(scores["controls"]) == {"random", "centre", "untrained", "wrong prompt"}
        assert scores["dice"]["value"] <= scores["dice_oracle"]["value"]
        assert 0.02 < scores["pointing_chance"]["value"] < 0.06
        low, value, high = (scores["pixel_auroc"][k] for k in ("low", "value", "high"))
        assert 0 <= low <= value <= high <= 1
        difference = scores["pixel_auroc"]["value"] - scores["controls"]["untrained"]["pixel_auroc"]["value"]
        np.testing.assert_allclose(scores["gain"]["untrained"]["pixel_auroc"]["value"], difference, atol=1e-5)
    assert "pooled" in results["tokens"]["image"]  # how tokens came into the joint space


@pytest.mark.slow
def test_the_page_stands_alone(explained):
    text = (explained / "report.html").read_text()
    assert "Synthetic data" in text and "http://" not in text and "https://" not in text
    assert text.count("data:image/png;base64,") == 1 + len(list((explained / "pictures").iterdir()))


@pytest.mark.slow
def test_sensitive_studies_are_shown_only_on_request(phantom_run, tmp_path):
    """Their maps, which hold no pixels, are written in any case."""
    workdir, data = tmp_path / "run", tmp_path / "data"
    config = json.loads((phantom_run / "config.json").read_text())
    shutil.copytree(phantom_run, workdir)
    shutil.copytree(config["data"]["dir"], data)
    dataclasses.replace(manifests.read(data), sensitive=True).save(data)
    same = (f"--workdir={workdir}", f"--data={data}", "--split=train", "--nogrounding", "--examples=1")
    for extra, pictures in (((), 0), (("--show_sensitive",), 1)):
        output = tmp_path / f"out{pictures}"
        _run(*same, f"--output={output}", "--findings=consolidation", "--method=rollout", "--against=text", *extra)
        assert len(list((output / "pictures").iterdir())) == pictures
        assert ("marked sensitive" in (output / "report.html").read_text()) != bool(pictures)
        assert (output / "maps" / "consolidation-image.npz").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method=similarty",), "did you mean 'similarity'"),
        pytest.param(("--findings=consolidaton",), "consolidation", marks=pytest.mark.slow),
        pytest.param(("--against=imge",), "image", marks=pytest.mark.slow),
    ],
)
def test_bad_input_is_one_line(phantom_run, tmp_path, arguments, message):
    done = _run(f"--workdir={phantom_run}", f"--output={tmp_path}", *arguments, status=2)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("error: ")
