"""The phantom is deterministic, physiologic, and keeps its exclusive-or finding out of each modality alone."""

from collections import Counter

import numpy as np
import pytest
from scipy.ndimage import uniform_filter
from scipy.signal import find_peaks

from medjax.data.readers.leads import LEADS
from medjax.data.records import decode_text, encode
from medjax.data.sources import Phantom
from medjax.data.sources.phantom import SEEN_IN
from medjax.data.sources.phantom_ecg import RATE, SECONDS, HeartState, render_ecg
from medjax.data.sources.phantom_image import ChestState, render_chest

JOINT = "discordant_laterality"
SIGMAS = 4.5  # of the binomial spread; with some 60 comparisons a false alarm has a chance below 1e-3


@pytest.fixture(scope="module")
def studies():
    return [study.read() for study in Phantom(patients=400, size=16).studies()]


def as_bytes(example) -> bytes:
    arrays = {f"{m}/{i}": x for m, items in example.items.items() for i, x in enumerate(items)}
    arrays |= {f"boxes/{k}": v for k, v in example.boxes.items()}
    arrays |= {f"factor/{k}": np.float64([v]) for k, v in example.factors.items()}
    return encode(arrays | {"labels": np.array(list(example.labels.values()))})


def spread(n: float, share: float = 0.5) -> float:
    """Tolerance of a share observed in n trials."""
    return SIGMAS * np.sqrt(share * (1 - share) / n)


def test_a_study_depends_on_seed_patient_and_number_alone():
    few = {s.name: s for s in Phantom(patients=3, size=32).studies()}
    many = {s.name: s for s in reversed(Phantom(patients=40, size=32).studies())}
    assert set(few) < set(many)
    assert all(as_bytes(few[name].read()) == as_bytes(many[name].read()) for name in few)


def test_another_seed_gives_other_studies():
    one, other = (Phantom(patients=1, size=32, seed=s).render(0, 0) for s in (0, 1))
    assert as_bytes(one) != as_bytes(other)


def test_patients_have_one_to_three_studies_with_one_age_and_sex(studies):
    assert {*Counter(e.patient_id for e in studies).values()} == {1, 2, 3}
    for factor in ("age", "sex", "heart"):
        values = {(e.patient_id, e.factors[factor]) for e in studies}
        assert len(values) == len({e.patient_id for e in studies})


@pytest.mark.parametrize("finding", SEEN_IN)
def test_prevalence(studies, finding):
    share = 0.5 if finding == JOINT else 0.3
    assert abs(np.mean([e.labels[finding] for e in studies]) - share) < spread(len(studies), share)


def test_modalities_and_lab_values_are_missing_as_often_as_said(studies):
    for modality, share in {"image": 0.05, "ecg": 0.08, "labs": 0.12, "text": 0.05}.items():
        missing = np.mean([modality not in e.items for e in studies])
        assert abs(missing - share) < spread(len(studies), share)
    values = np.stack([e.items["labs"][0] for e in studies if "labs" in e.items])
    assert abs(np.isnan(values).mean() - 0.15) < spread(values.size, 0.15)
    assert min(len(e.items) for e in studies) >= 2


def test_joint_finding_is_the_exclusive_or_and_independent_of_each_factor(studies):
    finding = np.array([e.labels[JOINT] for e in studies]) == 1
    left = np.array([e.factors["heart"] for e in studies]) == -1
    reversed_arms = np.array([e.factors["reversed_arms"] for e in studies]) == 1
    assert np.array_equal(finding, left != reversed_arms)
    for factor in (left, reversed_arms):
        for value in (False, True):
            among = finding[factor == value]
            assert abs(among.mean() - 0.5) < spread(len(among))


@pytest.mark.parametrize("factor", ["heart", "reversed_arms"])
def test_no_word_of_a_report_tells_which_side(studies, factor):
    reports = [(decode_text(e.items["text"][0]), e.factors[factor] == 1) for e in studies if "text" in e.items]
    words = [set(text.replace(".", " ").replace(",", " ").split()) for text, _ in reports]
    side = np.array([s for _, s in reports])
    for word in {w for w, n in Counter(x for ws in words for x in ws).items() if n >= 30}:
        said = np.array([word in ws for ws in words])
        share = said.mean()
        tolerance = SIGMAS * np.sqrt(share * (1 - share) * (1 / side.sum() + 1 / (~side).sum()))
        assert abs(said[side].mean() - said[~side].mean()) <= tolerance, word


def test_a_report_says_whether_the_sides_agree(studies):
    for e in studies:
        if "text" in e.items:
            text = decode_text(e.items["text"][0])
            assert ("discordant" in text, "concordant" in text) == (e.labels[JOINT] == 1, e.labels[JOINT] == 0)


def test_boxes_belong_to_their_finding_and_lie_inside_the_picture(studies):
    for e in studies:
        assert set(e.boxes) == {k for k in ("pleural_effusion", "consolidation") if e.labels[k]}
        for box in e.boxes.values():
            x0, y0, x1, y1 = box.T
            assert box.shape == (1, 4) and box.min() >= 0 and box.max() <= 1
            assert np.all(x0 < x1) and np.all(y0 < y1)


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("finding", ["pleural_effusion", "consolidation"])
def test_a_planted_box_is_where_the_picture_changes(side, finding):
    size = 64
    for seed in range(20):
        effusion, consolidation = (side * (finding == f) for f in ("pleural_effusion", "consolidation"))
        without = ChestState(False, 0, 0, True, 1)
        with_it = ChestState(False, effusion, consolidation, True, 1)
        before, _ = render_chest(without, np.random.default_rng(seed), size)
        after, boxes = render_chest(with_it, np.random.default_rng(seed), size)
        change = np.abs(after.astype(float) - before)
        x0, y0, x1, y1 = np.round(boxes[finding][0] * size).astype(int)
        inside = np.zeros_like(change, bool)
        inside[y0 : y1 + 1, x0 : x1 + 1] = True
        smooth = uniform_filter(change, 5)
        assert inside.flat[smooth.argmax()]
        assert smooth.max() > 3 * np.median(smooth)


@pytest.mark.parametrize("rate", [50, 75, 100, 120])
@pytest.mark.parametrize("block", [False, True])
def test_ecg_beats_at_the_heart_rate_in_millivolt(rate, block):
    signal = render_ecg(HeartState(rate, False, block, False, False), np.random.default_rng(0))
    assert signal.shape == (12, RATE * SECONDS) and signal.dtype == np.float32
    assert 0.5 < np.abs(signal).max() < 5
    intervals = np.diff(r_peaks(signal))
    # Two per cent of jitter a beat, and 10 ms of resolution.
    assert np.mean(intervals) == pytest.approx(60 / rate, rel=0.04)
    assert np.std(intervals) < 0.06 * np.mean(intervals)


def r_peaks(signal: np.ndarray) -> np.ndarray:
    lead = signal[LEADS.index("V5")]
    return find_peaks(lead, height=0.6 * lead.max(), distance=int(0.3 * RATE))[0] / RATE


def test_fibrillation_is_irregular():
    signal = render_ecg(HeartState(80, True, False, False, False), np.random.default_rng(0))
    intervals = np.diff(r_peaks(signal))
    assert np.std(intervals) > 0.1 * np.mean(intervals)


def test_reversed_arms_invert_lead_one():
    normal, reversed_arms = (
        render_ecg(HeartState(70, False, False, False, r), np.random.default_rng(0)) for r in (False, True)
    )
    assert normal[0].max() > -normal[0].min()
    assert reversed_arms[0].max() < -reversed_arms[0].min()


@pytest.mark.parametrize("seed", range(10))
def test_the_heart_points_to_the_side_of_its_factor(seed):
    right, left = (
        render_chest(ChestState(False, 0, 0, True, heart), np.random.default_rng(seed), 64)[0].astype(float)
        for heart in (1, -1)
    )
    assert (right - left)[:, 32:].mean() > 0 > (right - left)[:, :32].mean()


def test_labs_shift_with_their_finding(studies):
    names = Phantom().schema.modalities["labs"].names
    for test, finding, sign in (("haemoglobin", "anaemia", -1), ("creatinine", "renal_failure", 1)):
        rows = [(e.items["labs"][0][names.index(test)], e.labels[finding]) for e in studies if "labs" in e.items]
        values = np.array([r for r in rows if not np.isnan(r[0])])
        assert values[:, 0].min() > 0
        present, absent = (values[values[:, 1] == k, 0] for k in (1, 0))
        assert sign * (np.median(present) - np.median(absent)) > 2 * absent.std()
