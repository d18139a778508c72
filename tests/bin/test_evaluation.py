"""The evaluation binaries and the report, as a user runs them, on a run of a few steps."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import medjax
from medjax.evaluation.embeddings import embed_batches
from medjax.evaluation.retrieval import joint_retrieval, pairwise_retrieval
from medjax.evaluation.zero_shot import zero_shot

pytestmark = pytest.mark.end_to_end
ROOT = Path(__file__).parents[2]


def _run(binary: str, *arguments: str, status: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", f"medjax.bin.{binary}", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == status, done.stderr[-3000:]
    return done


def _read(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def evaluated(phantom_run, tmp_path_factory) -> Path:
    """A copy of the run with every evaluation and the report in it."""
    workdir = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(phantom_run, workdir)
    for name in ("zero_shot", "retrieval", "probe"):
        _run(f"evaluate_{name}", f"--workdir={workdir}")
    _run("report", f"--workdir={workdir}")
    return workdir


@pytest.fixture(scope="module")
def table_and_encoder(phantom_run):
    encoder = medjax.load(phantom_run)
    dataset = encoder.dataset()
    return embed_batches(encoder.encode, dataset.evaluation("test", 16), dataset.manifest.labels), encoder


def test_zero_shot_results_are_those_of_the_library(evaluated, table_and_encoder):
    table, encoder = table_and_encoder
    findings = encoder.manifest.findings
    expected = zero_shot(table, encoder.embed_prompts(findings), findings, encoder.scorer())
    found = _read(evaluated / "evaluation" / "zero_shot" / "results.json")
    for key, value in expected.macro.as_dict().items():
        np.testing.assert_allclose(found["zero_shot"]["macro_auroc"][key], value, atol=0.02)
    assert set(found["zero_shot"]["joint_findings"]) == {"discordant_laterality"}
    assert "discordant_laterality" not in found["zero_shot"]["findings"]
    assert set(found["controls"]) == {"chance", "untrained", "linear_probe"}
    assert found["data"]["examples"] == len(table) and found["data"]["synthetic"]
    assert found["gain_over_untrained"]["verdict"] in ("better", "worse", "not resolvable on this data")


def test_retrieval_results_are_those_of_the_library(evaluated, table_and_encoder):
    table, encoder = table_and_encoder
    found = _read(evaluated / "evaluation" / "retrieval" / "results.json")
    expected = {r.name: r for r in pairwise_retrieval(table)}
    assert set(found["retrieval"]) == set(expected) and len(expected) == 12
    for name, r in expected.items():
        got = found["retrieval"][name]
        assert got["gallery"] == r.gallery
        assert got["recall@1"]["value"] <= got["recall@5"]["value"] <= got["recall@10"]["value"] <= 1
        np.testing.assert_allclose(got["recall@10"]["value"], r.recall[10].value, atol=2 / r.gallery)
        np.testing.assert_allclose(got["chance"]["recall@10"], r.chance_recall[10], atol=1e-6)
    joint = joint_retrieval(table, "text", encoder.scorer())
    assert found["joint_retrieval"][joint.name]["gallery"] == joint.gallery
    assert len(found["joint_retrieval"]) == 4
    assert 0 <= found["joint_findings"]["discordant_laterality"]["accuracy"]["value"] <= 1


def test_a_probe_is_set_against_its_controls(evaluated):
    found = _read(evaluated / "evaluation" / "probe" / "results.json")
    assert set(found["probe"]) == {"image", "ecg", "labs", "all together"}
    for of in found["probe"].values():
        assert set(of) == {"trained", "untrained", "raw_input"}
    together = found["probe"]["all together"]
    difference = together["trained"]["macro_auroc"]["value"] - together["untrained"]["macro_auroc"]["value"]
    gain = found["gain"]["all together"]["untrained"]["macro_auroc"]["value"]
    np.testing.assert_allclose(gain, difference, atol=1e-5)
    # Findings that the picture cannot show are in the average, and lab values show theirs plainly even when raw.
    assert found["probe"]["labs"]["raw_input"]["labels"]["renal_failure"]["value"] > 0.8


def test_the_summary_gathers_what_was_measured(evaluated):
    summary = _read(evaluated / "summary.json")
    assert summary["train"]["steps"] == 4
    assert summary["train"]["loss_first"] > summary["train"]["loss_last"] > 0
    found = {k: _read(evaluated / "evaluation" / k / "results.json") for k in ("zero_shot", "retrieval")}
    assert summary["zero_shot"] == found["zero_shot"]["zero_shot"]
    assert summary["retrieval"] == found["retrieval"]["retrieval"]
    assert summary["joint_retrieval"] == found["retrieval"]["joint_retrieval"]


def test_reports_stand_alone_and_say_that_the_data_are_synthetic(evaluated):
    pages = [evaluated / "report.html", *(evaluated / "evaluation").glob("*/report.html")]
    assert len(pages) == 4
    for page in pages:
        text = page.read_text()
        assert "Synthetic data" in text
        assert "data:image/png;base64," in text
        assert "http://" not in text and "https://" not in text
        for link in (part.split('"')[0] for part in text.split('<a href="')[1:]):
            assert (page.parent / link).is_file()


def test_nearest_neighbours_are_shown_as_pictures_and_text(evaluated):
    text = (evaluated / "evaluation" / "retrieval" / "report.html").read_text()
    assert 'alt="ECG"' in text and 'alt="image"' in text
    assert text.count('<div class="card query">') == 9  # three queries of three modalities


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param((), "pass --workdir", marks=pytest.mark.slow),
        (("--workdir=nowhere",), "no run at nowhere"),
        (("--workdir={run}", "--checkpoint=bst"), "unknown checkpoint 'bst'"),
        pytest.param(("--workdir={run}", "--data=nowhere"), "no data set at nowhere", marks=pytest.mark.slow),
        pytest.param(("--workdir={run}", "--split=tset"), "split", marks=pytest.mark.slow),
    ],
)
def test_bad_input_is_one_line(phantom_run, arguments, message):
    arguments = [a.format(run=phantom_run) for a in arguments]
    done = _run("evaluate_zero_shot", *arguments, status=2)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("error: ")
