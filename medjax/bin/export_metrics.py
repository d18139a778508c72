"""What the evaluations in a run measured of a checkpoint, for the model card of its export."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medjax.evaluation.bootstrap import Interval


def measured(workdir: Path, step: int | None, weights: str = "raw") -> Iterator[dict[str, str]]:
    """`name`, `value` with its interval and `on` which data, of every evaluation of these weights at this step."""
    for path in sorted(workdir.glob("evaluation/*/results.json")):
        results = json.loads(path.read_text())
        of = results["checkpoint"]
        if (of["step"], of.get("weights", "raw")) != (step, weights):
            continue
        data = results["data"]
        on = f"{data['examples']} studies of {data['name']}, {data['split']} split"
        for name, values in _values(results):
            yield {"name": name, "value": str(Interval.of(values)), "on": on}


def _values(results: dict[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    if macro := results.get("zero_shot", {}).get("macro_auroc"):
        yield "zero-shot macro AUROC", macro
    for pair, found in {**results.get("retrieval", {}), **results.get("joint_retrieval", {})}.items():
        yield (
            f"{pair.replace('_to_', ' to ')} recall@10 (chance {found['chance']['recall@10']:.3f})",
            found["recall@10"],
        )
    for m, found in results.get("probe", {}).items():
        if found["trained"]["macro_auroc"]:
            yield f"linear probe of {m}, macro AUROC", found["trained"]["macro_auroc"]
