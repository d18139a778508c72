"""--targets of `evaluate_probe`: numbers such as age or a lab value, by ridge regression."""

from typing import Any

import numpy as np
from absl import flags

from medjax.bin import cli
from medjax.bin.evaluation import Subject
from medjax.bin.probe_features import ALL, SPLITS, Probing, feature_sets
from medjax.errors import UserError, suggest
from medjax.evaluation.bootstrap import verdict
from medjax.evaluation.page import Page
from medjax.evaluation.probe import joined_features
from medjax.evaluation.regression import RegressionResult, ridge_probe

_TARGETS = flags.DEFINE_list(
    "targets", [], "Numbers to predict: attributes such as age, and lab values by name where the data set has any."
)


def asked() -> bool:
    """Whether there are targets."""
    return bool(_TARGETS.value)


def check(subject: Subject) -> None:
    """Raises:
    UserError: an unknown target, or an attribute whose values are names.
    """
    numbers = [k for k, names in subject.attributes.items() if not names]
    for name in _TARGETS.value:
        if subject.attributes.get(name):
            raise UserError(f"--targets: {name} has named values, not numbers; valid: {', '.join(numbers) or '(none)'}")
        if name not in numbers and name not in _labs(subject):
            raise UserError(f"--targets: no number {name!r}; {suggest(name, [*numbers, *_labs(subject)])}")


def _labs(subject: Subject) -> dict[str, tuple[str, int, str]]:
    """`{lab value: (modality, column, unit)}` of a data set; stored embeddings have none."""
    if subject.dataset is None:
        return {}
    manifest = subject.dataset.manifest
    return {
        name: (m, i, schema.units[i])
        for m, schema in manifest.modalities.items()
        if schema.kind == "labs"
        for i, name in enumerate(schema.names)
    }


def _values(subject: Subject, target: str) -> dict[str, np.ndarray]:
    """`{split: float32[n]}`, NaN unknown, for the rows of the tables; beyond a detection limit is unknown."""
    if target not in _labs(subject):
        return {split: subject.table(split).attributes[target] for split in SPLITS}
    modality, column, _ = _labs(subject)[target]
    out = {}
    for split in SPLITS:
        rows = subject.dataset.raw_items(split, subject.table(split).rows.tolist())
        found = np.array([r[modality][0][column] if r[modality] else np.nan for r in rows], np.float32)
        out[split] = np.where(np.isfinite(found), found, np.nan)
    return out


def add(probing: Probing, page: Page) -> dict[str, Any]:
    """The part of results.json, printed and on the page; whatever the recipe, numbers are predicted by ridge."""
    if not asked():
        return {}
    subject = probing.subject
    labs, results, rows = _labs(subject), {}, []
    for target in _TARGETS.value:
        holder, unit = (labs[target][0], labs[target][2]) if target in labs else ("", "")
        values, results[target] = _values(subject, target), {"unit": unit, "held_by": holder or None, "probe": {}}
        for what, used in feature_sets([m for m in probing.modalities if m != holder]).items():
            of = {
                n: ridge_probe({k: joined_features(t, used) for k, t in tables.items()}, values)
                for n, tables in probing.tables.items()
            }
            what = f"all but {holder}" if holder and what == ALL else what
            results[target]["probe"][what] = {
                n: r.as_dict() if isinstance(r, RegressionResult) else {"skipped": r} for n, r in of.items()
            }
            rows += [_row(f"{target} {unit}".strip(), what, n, r) for n, r in of.items()]
    header = ("target", "features", "encoder", "R2", "MAE", "MAE of the mean", "gain", "Pearson r")
    print("numbers by ridge regression")
    cli.print_table(header, rows)
    page.heading("Numbers")
    page.text(
        "Ridge regression on features standardised by the training split, its penalty chosen by squared error on "
        "validation. The control predicts the mean of the training split; the gain is how much less the mean absolute "
        "error is, paired over patients. A modality that holds a value is not asked for it."
    )
    page.table(header, rows)
    return {"regression": results}


def _row(target: str, what: str, name: str, result: RegressionResult | str) -> tuple[object, ...]:
    if isinstance(result, str):
        return (target, what, name, f"not scored: {result}", "-", "-", "-", "-")
    gain = f"{result.gain}: {verdict(result.gain)}"
    return (target, what, name, result.r2, result.mae, result.mean_mae, gain, result.pearson)
