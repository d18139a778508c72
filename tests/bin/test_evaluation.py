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
    more = {"probe": ("--fractions=0.5,1", "--targets=age,creatinine", "--exclusive=cardiomegaly,consolidation")}
    for name in ("zero_shot", "retrieval", "probe"):
        _run(f"evaluate_{name}", f"--workdir={workdir}", *more.get(name, ()))
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
    controls = {"chance", "untrained", "shuffled", "attributes", "text_only", "linear_probe"}
    assert set(found["controls"]) == controls
    assert all(found["controls"][k]["macro_auroc"] for k in controls)
    assert found["data"]["examples"] == len(table) and found["data"]["synthetic"]
    assert found["gain_over_untrained"]["verdict"] in ("better", "worse", "not resolvable on this data")


def test_what_zero_shot_fits_comes_from_validation(evaluated, table_and_encoder):
    _, encoder = table_and_encoder
    found = _read(evaluated / "evaluation" / "zero_shot" / "results.json")
    dataset = encoder.dataset()
    table = embed_batches(encoder.encode, dataset.evaluation("validation", 16), dataset.manifest.labels)
    findings = encoder.manifest.findings
    result = zero_shot(table, encoder.embed_prompts(findings), findings, encoder.scorer(), 0)
    scores = {f.name: f.scores[f.counted] for f in result.scored}
    points = found["operating_points"]["findings"]
    assert points and set(points) <= set(scores)
    for name, ways in points.items():
        for of in ways.values():
            assert np.abs(scores[name] - of["threshold"]).min() < 1e-3  # the batches, and so the sums, are others
    assert set(found["subgroups"]) == {"age", "sex"}
    assert all(set(of) <= {"raw", "temperature", "platt"} for of in found["calibration"]["findings"].values())


@pytest.mark.slow
def test_zero_shot_of_two_data_sets_by_a_prompt_file_against_another_model(phantom_run, phantom_dir, tmp_path):
    other = tmp_path / "other"
    other.symlink_to(phantom_dir)
    rhythms = ["atrial_fibrillation", "st_elevation"]
    content = {"templates": ["the ecg shows {}"], "classes": {k: [k] for k in rhythms}, "groups": {"kind": rhythms}}
    prompts, output = tmp_path / "prompts.json", tmp_path / "out"
    prompts.write_text(json.dumps(content))
    done = _run(
        "evaluate_zero_shot",
        f"--workdir={phantom_run}",
        f"--data={phantom_dir},{other}",
        f"--prompts={prompts}",
        "--rule=gloria_max",
        "--modality=ecg",
        f"--against={phantom_run}",
        f"--output={output}",
    )
    combined = _read(output / "combined.json")
    assert set(combined) == {phantom_dir.name, "other"}
    assert combined["other"]["macro_auroc"] == combined[phantom_dir.name]["macro_auroc"]
    found = _read(output / "other" / "results.json")
    assert found["prompts"]["st_elevation"] == {"positive": ["the ecg shows st_elevation"], "negative": []}
    assert found["modalities"] == ["ecg"] and found["rule"]["name"] == "gloria_max"
    group = found["classes"]["kind"]
    assert np.sum(group["confusion"]) == sum(group["examples"].values())
    same = found["against"]["macro_auroc"]
    assert same["difference"] == {"value": 0, "low": 0, "high": 0}
    assert same["verdict"] == "not resolvable on this data"
    assert "kind" in done.stdout and (output / "combined.html").is_file()


def test_retrieval_results_are_those_of_the_library(evaluated, table_and_encoder):
    table, encoder = table_and_encoder
    found = _read(evaluated / "evaluation" / "retrieval" / "results.json")
    expected = {r.name: r for r in pairwise_retrieval(table)}
    assert set(found["retrieval"]) == set(expected) and len(expected) == 12
    for name, r in expected.items():
        got = found["retrieval"][name]
        assert got["gallery"] == len(r.gallery)
        assert got["recall@1"]["value"] <= got["recall@5"]["value"] <= got["recall@10"]["value"] <= 1
        np.testing.assert_allclose(got["recall@10"]["value"], r.recall[10].value, atol=2 / len(r.gallery))
        np.testing.assert_allclose(got["chance"]["recall@10"], r.chance_recall[10], atol=1e-6)
    joint = joint_retrieval(table, "text", encoder.scorer())
    assert found["joint_retrieval"][joint.name]["gallery"] == len(joint.gallery)
    assert len(found["joint_retrieval"]) == 4
    assert 0 <= found["joint_findings"]["discordant_laterality"]["accuracy"]["value"] <= 1


def test_a_probe_is_set_against_its_controls(evaluated):
    found = _read(evaluated / "evaluation" / "probe" / "results.json")
    assert set(found["probe"]) == {"image", "ecg", "labs", "all together"}
    for of in found["probe"].values():
        assert set(of) == {"trained", "untrained", "raw_input", "shuffled"}
    assert set(found["controls"]) == {"chance", "attributes", "text"}
    assert found["recipe"]["name"] == "newton" and "standardised" in found["recipe"]["features"]
    together = found["probe"]["all together"]
    difference = together["trained"]["macro_auroc"]["value"] - together["untrained"]["macro_auroc"]["value"]
    gain = found["gain"]["all together"]["untrained"]["macro_auroc"]["value"]
    np.testing.assert_allclose(gain, difference, atol=1e-5)
    # Findings that the picture cannot show are in the average, and lab values show theirs plainly even when raw.
    assert found["probe"]["labs"]["raw_input"]["labels"]["renal_failure"]["value"] > 0.8


def test_a_probe_says_more_where_it_is_asked(evaluated, table_and_encoder):
    folder = evaluated / "evaluation" / "probe"
    found = _read(folder / "results.json")
    whole, half = (found["fractions"]["probe"]["labs"][k]["trained"] for k in ("1", "0.5"))
    scored = [found["probe"]["labs"]["trained"]["labels"][k]["value"] for k in whole["labels"]]
    np.testing.assert_allclose(whole["macro_auroc"]["value"], np.mean(scored), atol=1e-5)
    assert half["seeds"] == len(half["by_seed"]) == 3 and half["examples"] < whole["examples"]
    lists = [_read(p) for p in sorted((folder / "fraction_lists").iterdir())]
    assert [(x["fraction"], x["seed"]) for x in lists] == [(0.5, 0), (0.5, 1), (0.5, 2), (1.0, 0)]
    assert len(lists[-1]["rows"]) == len(set(lists[-1]["examples"])) == whole["examples"]
    # A lab value is not asked of the lab values; age is.
    assert set(found["regression"]["creatinine"]["probe"]) == {"image", "ecg", "all but labs"}
    assert set(found["regression"]["age"]["probe"]) == {"image", "ecg", "labs", "all together"}
    table, _ = table_and_encoder
    one = found["exclusive"]["probe"]["labs"]["trained"]
    assert sum(one["test_examples"].values()) == len(table) - found["exclusive"]["left_out"]["test"]


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
