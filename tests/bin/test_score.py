"""medjax.bin.score on outputs that somebody else made."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.stats import kendalltau
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from medjax.bin import score_folders, score_tables
from medjax.bin.score_result import publish
from medjax.errors import UserError
from medjax.evaluation.scoring import pictures

ROOT = Path(__file__).parents[2]


def _table(path: Path, columns: dict) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([list(columns), *zip(*columns.values(), strict=True)])
    return str(path)


def _run(*arguments: str, status: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "medjax.bin.score", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr[-3000:]
    return done


def _published(task: str, scored, tmp_path: Path, left_out=None) -> dict:
    publish(task, scored, tmp_path / "out", left_out or {})
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000
    return json.loads((tmp_path / "out" / "results.json").read_text())


@pytest.fixture
def scans(rng, tmp_path):
    """Eight smooth pictures, and the same with noise."""
    for folder in ("real", "made"):
        (tmp_path / folder).mkdir()
    for i in range(8):
        real = np.kron(rng.integers(0, 256, (4, 4)), np.ones((6, 6)))
        made = np.clip(real + rng.normal(0, 20, real.shape), 0, 255)
        for folder, pixels in (("real", real), ("made", made)):
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / folder / f"scan.{i}.png")
    return str(tmp_path / "made"), str(tmp_path / "real")


class Pixels:
    """Stands for an encoder of pictures: its embeddings are sums over their rows."""

    modalities = ("image",)

    manifest = SimpleNamespace(findings={}, modality=lambda name: SimpleNamespace(kind="image"))

    def embed(self, inputs):
        return {m: np.stack([np.asarray(Image.open(p), np.float32).sum(1) for p in x]) for m, x in inputs.items()}


def test_pictures_are_compared_pair_by_pair_and_as_sets(scans, tmp_path):
    patients = _table(tmp_path / "who.csv", {"file": [f"scan.{i}.png" for i in range(8)], "patient": list("aabbccdd")})
    scored = score_folders.images(*scans, patients, Pixels(), 0)
    assert scored.patients_known and len(np.unique(scored.patients)) == 4
    found = _published("images", {"made": scored}, tmp_path)
    made, real = ([np.asarray(Image.open(p)) for p in sorted(Path(f).iterdir())] for f in scans)
    pairs = found["images"]["made"]["pairs"]
    assert pairs["psnr"]["value"] == pytest.approx(
        np.mean([pictures.psnr(x, y) for x, y in zip(made, real, strict=True)]), abs=1e-5
    )
    assert pairs["ssim"]["low"] < pairs["ssim"]["value"] < pairs["ssim"]["high"] < 1
    torn = found["controls"]["shuffled"]["made"]
    assert torn["pairs"]["ssim"]["value"] < pairs["ssim"]["low"]
    assert found["images"]["made"]["embeddings"]["recall@1"]["value"] == 1
    assert torn["embeddings"]["recall@1"]["value"] < 0.5
    x, y = (Pixels().embed({"image": sorted(Path(f).iterdir())})["image"] for f in scans)
    distance = found["images"]["made"]["frechet_distance"]
    assert distance["value"] == pytest.approx(pictures.frechet(x, y), rel=1e-6)
    assert distance["value"] < distance["of_reference_halves"]
    assert found["data"]["patients"] == 4 and found["data"]["examples"] == 8


def test_folders_that_do_not_fit_are_refused_by_name(scans, tmp_path):
    made, real = scans
    lonely = Path(real) / "scan.7.png"
    lonely.rename(tmp_path / "scan.7.png")
    with pytest.raises(UserError, match=r"made/scan\.7\.png has no partner in .*real \(1 of 8"):
        score_folders.images(made, real, "", None, 0)
    Image.new("L", (20, 24)).save(lonely)
    with pytest.raises(UserError, match=r"'scan\.7' is \[24, 24\] in .*made and \[24, 20\] in .*real"):
        score_folders.images(made, real, "", None, 0)
    with pytest.raises(UserError, match="there is no folder"):
        score_folders.images(made, str(tmp_path / "nowhere"), "", None, 0)


def test_masks_are_scored_class_by_class(tmp_path):
    for folder in ("called", "true"):
        (tmp_path / folder).mkdir()
    # Half of class 1 in a.npy, all of class 2 in b.npy, class 3 called where none is.
    truth, called = np.zeros((2, 1, 4, 4), np.uint8), np.zeros((2, 1, 4, 4), np.uint8)
    truth[0, 0, 0], called[0, 0, 0, :2] = 1, 1
    truth[1, 0, 2], called[1, 0, 2], called[1, 0, 3, 3] = 2, 2, 3
    for i, name in enumerate("ab"):
        np.save(tmp_path / "called" / f"{name}.npy", called[i])
        np.save(tmp_path / "true" / f"{name}.npy", truth[i])
    scored = score_folders.segmentation(str(tmp_path / "called"), str(tmp_path / "true"), "", 0)
    found = _published("segmentation", {"theirs": scored}, tmp_path)["segmentation"]["theirs"]
    assert found["class 1"]["dice"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["class 1"]["iou"]["value"] == 0.5 and found["class 2"]["hd95_pixels"]["value"] == 0
    assert found["class 3"]["dice"]["value"] == 0 and "hd95_pixels" not in found["class 3"]
    assert found["mean of classes"]["dice"]["value"] == pytest.approx(5 / 9, abs=1e-6)
    assert found["cases_with_class"] == {"1": 1, "2": 1, "3": 0}
    assert any("class 3 is in no reference" in note for note in scored.notes)
    np.save(tmp_path / "called" / "a.npy", called[0] + 0.5)
    with pytest.raises(UserError, match=r"mask 'a' of .*called holds numbers that are no class"):
        score_folders.segmentation(str(tmp_path / "called"), str(tmp_path / "true"), "", 0)


def test_maps_are_scored_against_boxes_with_a_threshold_of_the_validation(rng, tmp_path):
    for folder in ("maps", "validation"):
        (tmp_path / folder).mkdir()
        boxes = {}
        for i in range(6):
            map_ = rng.random((8, 8)) * 0.4
            map_[:4, 4:] += 0.5
            np.save(tmp_path / folder / f"{i}.npy", map_)
            boxes[str(i)] = [[0.5, 0.0, 1.0, 0.5]] if i else [[0.0, 0.5, 0.5, 1.0]]  # the first points elsewhere
        (tmp_path / f"{folder}.json").write_text(json.dumps(boxes))
    places = [str(tmp_path / x) for x in ("maps", "maps.json", "validation", "validation.json")]
    scored = score_folders.grounding_maps(places[0], places[1], "", tuple(places[2:]), 0)
    found = _published("grounding", {"maps": scored}, tmp_path)
    maps = found["grounding"]["maps"]["maps"]
    assert maps["pointing"]["value"] == maps["dice"]["value"] == pytest.approx(5 / 6, abs=1e-6)
    assert found["controls"]["random pixel"]["maps"]["maps"]["pointing"]["value"] == 0.25
    assert "dice" not in score_folders.grounding_maps(*places[:2], "", None, 0).values["maps"]
    (tmp_path / "maps.json").write_text(json.dumps({"0": [[0.5, 0, 0.2, 1]]}))
    with pytest.raises(UserError, match="a box of '0'"):
        score_folders.grounding_maps(*places[:2], "", None, 0)


def test_grades_and_classes_as_other_libraries_score_them(rng, tmp_path):
    truth = rng.integers(0, 4, 50)
    called = np.clip(truth + rng.integers(-1, 2, 50), 0, 3)
    table = _table(tmp_path / "g.csv", {"grade/kl": called, "label/kl": truth, "patient": np.arange(50) // 2})
    scored = score_tables.ordinal(table, 0)
    found = _published("ordinal", {"g": scored}, tmp_path)
    kl = found["ordinal"]["g"]["kl"]
    assert kl["quadratic_kappa"]["value"] == pytest.approx(
        cohen_kappa_score(truth, called, weights="quadratic"), abs=1e-6
    )
    assert kl["kendall_tau_b"]["value"] == pytest.approx(kendalltau(truth, called).statistic, abs=1e-6)
    assert kl["within_one"]["value"] == 1 and found["data"]["patients"] == 25
    assert found["controls"]["most frequent"]["g"]["kl"]["quadratic_kappa"]["value"] == 0
    scores = rng.random((50, 3)) + np.eye(3)[truth % 3]
    names = np.array(["a", "b", "c"])
    columns = {f"score/{n}": scores[:, k] for k, n in enumerate(names)} | {"label": names[truth % 3]}
    found = _published("multiclass", {"c": score_tables.classes(_table(tmp_path / "c.csv", columns), 0)}, tmp_path)
    every = found["multiclass"]["c"]["all classes"]
    assert every["auroc"]["value"] == pytest.approx(
        np.mean([roc_auc_score(truth % 3 == k, scores[:, k]) for k in range(3)]), abs=1e-6
    )
    assert every["accuracy"]["value"] == pytest.approx(np.mean(scores.argmax(1) == truth % 3))
    with pytest.raises(UserError, match=r"row 1: column 'grade/kl' holds 0\.5"):
        score_tables.ordinal(_table(tmp_path / "w.csv", {"grade/kl": [0.5, 1], "label/kl": [0, 1]}), 0)


class Letters:
    """Stands for an encoder of text: it counts letters."""

    modalities = ("text",)

    manifest = SimpleNamespace(findings={"effusion": None})

    def embed(self, inputs):
        count = [[t.count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for t in inputs["text"]]
        return {"text": np.array(count, np.float32)}

    def embed_prompts(self, findings):
        return {k: (np.eye(26, dtype=np.float32)[[20]], np.eye(26, dtype=np.float32)[[25]]) for k in findings}


def test_reports_find_their_own_reference_and_tell_findings(tmp_path):
    words = ["fluid", "no fluid in it", "heart", "calm", "bone", "dust up", "rib", "gap", "jam", "tick", "vex", "wax"]
    sick = [int("u" in w) for w in words]
    table = _table(tmp_path / "r.csv", {"generated": words, "reference": words, "label/effusion": sick})
    found = _published("reports", {"r": score_tables.reports(table, Letters(), 0)}, tmp_path)
    assert found["reports"]["r"]["reports"]["recall@1"]["value"] == 1
    assert found["reports"]["r"]["effusion"]["auroc"]["value"] == 1
    assert found["controls"]["shuffled"]["r"]["reports"]["recall@1"]["value"] < 0.4
    assert found["controls"]["real_report"]["r"]["effusion"]["auroc"]["value"] == 1
    with pytest.raises(UserError, match="pass --workdir or --export"):
        score_tables.reports(table, None, 0)


@pytest.mark.end_to_end
def test_several_tables_become_one_with_a_mean(rng, tmp_path):
    truth = rng.integers(0, 2, (2, 40))
    columns = [{"score/sick": t + rng.normal(size=40), "label/sick": t} for t in truth]
    inputs = ",".join(_table(tmp_path / f"{n}.csv", c) for n, c in zip("ab", columns, strict=True))
    said = _run(f"--inputs={inputs}", f"--validation={tmp_path / 'a.csv'}", f"--output={tmp_path / 'out'}").stdout
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    each = [roc_auc_score(t, c["score/sick"]) for t, c in zip(truth, columns, strict=True)]
    assert found["mean_of_data_sets"]["auroc"]["value"] == pytest.approx(np.mean(each), abs=1e-6)
    assert "mean" in said and found["predictions"]["b"]["labels"]["sick"]["f1"]["value"] > 0
    wrong = _run("--task=images", f"--inputs={inputs}", "--output=out", status=2).stderr
    assert wrong.strip() == "error: --task=images needs --reference, one or one for each of 2 inputs"
