"""results.json files for the tests."""

import json
from pathlib import Path


def interval(value, low=None, high=None) -> dict:
    return {"value": value, "low": low, "high": high}


def results(name="a", digest="aa", sensitive=False, notes=(), times=1, **measured) -> dict:
    return {
        "medjax": "1.0",
        "subject": {"kind": "run", "name": name},
        "checkpoint": {"name": "best", "step": 3, "weights": "raw"},
        "data": {
            **{"name": "d", "synthetic": False, "licence": "CC-BY-4.0", "terms": ["attribution"], "notes": list(notes)},
            **{"manifest_sha256": None, "patients_known": True, "sensitive": sensitive, "texts_from_labels": False},
            **{"split": "test", "examples": 300, "patients": 210, "example_list_sha256": digest},
            "times_opened": times,
        },
        "intervals": "95 %, bootstrap over patients",
        **measured,
    }


def zero_shot(mi=(0.8, 0.7, 0.9), shuffled=0.5, **more) -> dict:
    findings = {"MI": {"auroc": interval(*mi), "auprc": interval(0.5), "positives": 30, "negatives": 70}}
    controls = {"shuffled": {"findings": {"MI": {"auroc": interval(shuffled)}}}, "text_only": {"macro_auroc": 0.99}}
    return results(zero_shot={"macro_auroc": interval(*mi), "findings": findings}, controls=controls, **more)


def write(folder: Path, content: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(content))
    return folder / "results.json"
