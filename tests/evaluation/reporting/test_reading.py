"""Scores find their controls by place, and what is said of them follows from the numbers."""

from pathlib import Path

import pytest
from made_results import interval, results, zero_shot

from medjax.evaluation.reporting.gathering import Evaluation
from medjax.evaluation.reporting.reading import headlines, measurements, paired


def read(content):
    return {m.key: m for m in measurements(Evaluation("e", Path("x"), content))}


def controls(m):
    return {k: v.value for k, v in m.controls.items()}


def test_controls_at_the_top_match_from_the_second_key_on():
    found = read(zero_shot())
    assert controls(found["zero_shot", "MI", "auroc"]) == {"chance": 0.5, "shuffled": 0.5}
    assert controls(found["zero_shot", "macro_auroc"]) == {"chance": 0.5, "text_only": 0.99}
    assert controls(found["zero_shot", "MI", "auprc"]) == {"chance": 0.3}  # 30 of 100 are positive


def test_a_mean_is_no_control_of_one_finding():
    content = zero_shot()
    content["controls"] = {"attributes": {"macro_auroc": 0.6, "labels": {"MI": interval(0.7)}}}
    found = read(content)
    assert controls(found["zero_shot", "macro_auroc"])["attributes"] == 0.6
    assert controls(found["zero_shot", "MI", "auroc"])["attributes"] == 0.7
    content["controls"]["attributes"].pop("labels")
    assert "attributes" not in read(content)["zero_shot", "MI", "auroc"].controls


def test_siblings_of_trained_are_its_controls():
    of = {"trained": {"macro_auroc": interval(0.9, 0.8, 0.95), "labels": {"MI": interval(0.7)}}}
    of |= {"untrained": {"macro_auroc": interval(0.85), "labels": {"MI": interval(0.6)}}}
    found = read(results(probe={"ecg": of}, controls={"attributes": {"macro_auroc": interval(0.55)}}))
    assert set(found) == {("probe", "ecg", "macro_auroc"), ("probe", "ecg", "MI", "auroc")}
    mean = found["probe", "ecg", "macro_auroc"]
    assert controls(mean) == {"chance": 0.5, "untrained": 0.85, "attributes": 0.55}
    assert controls(found["probe", "ecg", "MI", "auroc"]) == {"chance": 0.5, "untrained": 0.6}
    assert mean.strongest == ("untrained", 0.85) and mean.clears is False


def test_chance_and_controls_inside_a_part():
    part = {"recall@10": interval(0.5, 0.4, 0.6), "median_rank": interval(3.0, 2.0, 4.0)}
    part |= {"chance": {"recall@10": 0.1, "median_rank": 50.0}, "controls": {"random": {"recall@10": 0.45}}}
    found = read(results(retrieval={"ecg_to_text": part}))
    recall, rank = found["retrieval", "ecg_to_text", "recall@10"], found["retrieval", "ecg_to_text", "median_rank"]
    assert controls(recall) == {"chance": 0.1, "random": 0.45} and recall.clears is False
    assert rank.strongest == ("chance", 50.0) and rank.clears is True  # less is better
    assert recall.what == "ecg to text"


def test_findings_of_several_modalities_have_their_controls_in_either_place():
    part = {"x": {"auroc": interval(0.6)}}
    one = results(zero_shot={"joint_findings": part}, controls={"untrained": {"joint_findings": part}})
    assert controls(read(one)["zero_shot", "x", "auroc"])["untrained"] == 0.6
    part = {"x": {"accuracy": interval(0.6)}}
    two = results(joint_findings=part, controls={"untrained": {"joint_findings": part}})
    assert controls(read(two)["joint_findings", "x", "accuracy"])["untrained"] == 0.6


def test_a_segmentation_is_set_against_other_features_of_the_same_head():
    rows = [
        {"head": h, "features": f, "step": 1, "dice": {"mean": interval(v, v, v)}}
        for h, f, v in (("linear", "encoder", 0.7), ("linear", "intensities", 0.6), ("deep", "intensities", 0.9))
    ]
    found = read(results(segmentation={"results": rows}))
    (m,) = found.values()
    assert controls(m) == {"intensities": 0.6} and m.clears is True


def test_a_robustness_score_takes_the_name_of_its_metric():
    node = {"metric": "macro AUROC", "clean": interval(0.8, 0.7, 0.9), "controls": {"untrained": interval(0.6)}}
    node |= {"kinds": {"noise": {"levels": {"1": interval(0.7)}, "drop": interval(0.1)}}}
    found = read(results(corruptions={"image": {"probe": node}}))
    clean = found["corruptions", "image", "probe", "clean", "macro_auroc"]
    assert controls(clean) == {"chance": 0.5, "untrained": 0.6}
    assert ("corruptions", "image", "probe", "noise", "drop") in found
    assert [m.key for m in headlines(list(found.values()))["corruptions"]] == [clean.key]


@pytest.mark.parametrize(("low", "clears"), [(0.51, True), (0.5, False), (None, None)])
def test_a_score_clears_where_its_whole_interval_does(low, clears):
    assert read(zero_shot(mi=(0.8, low, 0.9)))["zero_shot", "MI", "auroc"].clears is clears


def test_a_mark_to_reach_need_not_be_beaten():
    assert read(zero_shot())["zero_shot", "macro_auroc"].clears is True  # text only is 0.99


def test_differences_are_read_with_their_verdicts_and_are_no_scores():
    pair = {"own": interval(0.8), "other": interval(0.7), "difference": interval(0.1, -0.1, 0.3), "verdict": "said"}
    content = zero_shot(against={"place": "b", "findings": {"MI": pair}}, gain_over_untrained={"x": interval(1, 1, 1)})
    found = paired(Evaluation("e", Path("x"), content))
    assert [(p.what, p.interval.value, p.verdict) for p in found] == [
        ("MI", 0.1, "said"),
        ("gain over untrained, x", 1, "better"),
    ]
    assert set(read(content)) == set(read(zero_shot()))


def test_controls_are_no_scores():
    below = {"own": interval(0.3), "gain": {"x": interval(1)}}
    content = results(anything={"x": {"own": interval(0.4), "controls": {"c": below}}})
    assert set(read(content)) == {("anything", "x", "own")}
    assert paired(Evaluation("e", Path("x"), content)) == []
