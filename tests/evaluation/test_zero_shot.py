"""Zero-shot findings: planted directions are found, and only studies that can show a finding count."""

import json

import numpy as np
import pytest

from medjax.data.manifest import Finding
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.zero_shot import zero_shot

N = 80
NAMES = ("seen", "other", "joint", "rare")


def finding(*seen_in, joint=False) -> Finding:
    return Finding(("yes",), ("no",), seen_in, joint)


FINDINGS = {
    "seen": finding("image"),
    "other": finding(),
    "joint": finding("image", "ecg", joint=True),
    "rare": finding(),
}


@pytest.fixture
def planted(rng):
    """Label k is the sign of axis k of the picture's embedding; the ECG is noise. Prompts are the axes."""
    image, ecg, text = (rng.normal(size=(N, 8)).astype(np.float32) for _ in range(3))
    labels = (image[:, :4] > 0).astype(np.float32)
    labels[:, 3] = 0
    present = {m: np.ones(N, bool) for m in ("image", "ecg", "text")}
    table = EmbeddingTable(
        {"image": image, "ecg": ecg, "text": text},
        present,
        np.arange(N) // 2,
        np.arange(N),
        labels,
        NAMES,
        np.arange(N),
    )
    axes = np.eye(8, dtype=np.float32)
    return table, {name: (axes[k : k + 1], -axes[k : k + 1]) for k, name in enumerate(NAMES)}


def scorer(queries, candidates, target, present):
    assert target == "text" and "text" not in queries
    return sum(np.where(present[m][:, None], q, 0) @ candidates.T for m, q in queries.items())


def run(planted, findings=None, **changes):
    table, prompts = planted
    return {f.name: f for f in zero_shot(table, prompts, FINDINGS | (findings or {}), scorer, 50).findings}


def test_a_planted_finding_is_found_by_the_modality_that_shows_it(planted):
    f = run(planted)["seen"]
    # 40 against 40: standard errors below 0.065. The sum of the sign's own normal and another has an AUROC of 3/4.
    assert f.by_modality["image"].value == 1
    assert f.auroc.value == pytest.approx(0.75, abs=4 * 0.055)
    assert f.by_modality["ecg"].value == pytest.approx(0.5, abs=4 * 0.065)
    assert "text" not in f.by_modality


def test_exchanged_prompts_turn_the_score_round(planted):
    table, prompts = planted
    turned = {name: (n, p) for name, (p, n) in prompts.items()}
    a, b = run(planted)["seen"], run((table, turned))["seen"]
    assert a.auroc.value + b.auroc.value == pytest.approx(1)


def test_the_reports_own_embedding_plays_no_part(planted):
    table, prompts = planted
    before = run(planted)["seen"].scores.copy()
    table.embeddings["text"][:] = 7
    np.testing.assert_array_equal(run((table, prompts))["seen"].scores, before)


def test_several_prompts_count_by_their_mean(planted, rng):
    table, prompts = planted
    positive, negative = rng.normal(size=(3, 8)).astype(np.float32), rng.normal(size=(2, 8)).astype(np.float32)
    got = run((table, {**prompts, "seen": (positive, negative)}))["seen"].scores
    both = table.embeddings["image"] + table.embeddings["ecg"]
    # float32 sums of 8 products.
    np.testing.assert_allclose(got, both @ (positive.mean(0) - negative.mean(0)), atol=1e-5)


def test_joint_findings_stand_apart_from_the_macro_average(planted):
    table, prompts = planted
    result = zero_shot(table, prompts, FINDINGS, scorer, 50)
    by_name = {f.name: f for f in result.findings}
    expected = (by_name["seen"].auroc.value + by_name["other"].auroc.value) / 2
    assert result.macro.value == pytest.approx(expected)
    shown = result.as_dict()
    assert set(shown["findings"]) == {"seen", "other", "rare"} and set(shown["joint_findings"]) == {"joint"}
    assert json.loads(json.dumps(shown)) == shown


def test_a_finding_without_positives_is_skipped_and_says_why(planted):
    f = run(planted)["rare"]
    assert f.auroc is None and (f.positives, f.negatives) == (0, N)
    assert f.skipped == "no positive example in the split"


def test_a_finding_without_negatives_is_skipped_and_says_why(planted):
    planted[0].labels[:, 3] = 1
    assert run(planted)["rare"].skipped == "no negative example in the split"


def test_a_finding_that_no_embedded_modality_shows_is_skipped_and_says_why(planted):
    f = run(planted, {"seen": finding("labs")})["seen"]
    assert f.auroc is None and f.skipped == "it shows in labs, which is not among the modalities scored"


def test_only_studies_with_the_modalities_that_show_it_count(planted):
    table, _ = planted
    table.present["image"][:30] = False
    table.present["ecg"][20:40] = False
    found = run(planted)
    counted = {name: f.positives + f.negatives for name, f in found.items()}
    # 20 to 29 have neither picture nor ECG.
    assert counted == {"seen": 50, "other": 70, "joint": 40, "rare": 70}
    assert not found["seen"].counted[:30].any()


def test_unknown_labels_do_not_count(planted):
    table, _ = planted
    table.labels[:25, 0] = np.nan
    assert run(planted)["seen"].positives + run(planted)["seen"].negatives == N - 25


def test_without_any_scored_finding_there_is_no_macro(planted):
    table, prompts = planted
    table.labels[:] = 0
    result = zero_shot(table, prompts, FINDINGS, scorer, 10)
    assert result.macro is None and all(f.skipped for f in result.findings)


def test_a_finding_of_a_single_patient_leaves_some_replicates_empty_and_still_has_an_interval(planted):
    table, prompts = planted
    table.labels[:, 3] = 0
    table.labels[:2, 3] = 1  # two studies of one patient
    result = zero_shot(table, {"rare": prompts["rare"]}, FINDINGS, scorer, 200)
    (f,) = result.findings
    missing = np.isnan(f.replicates).mean()
    assert 0.2 < missing < 0.6  # one patient of 40 is left out with probability 0.37
    assert np.isfinite([f.auroc.low, f.auroc.high, result.macro.low, result.macro.high]).all()
