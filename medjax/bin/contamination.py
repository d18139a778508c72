"""How much of a data set an encoder has been trained on: python -m medjax.bin.contamination --export=DIR --data=DATA.

The training data are not needed: the export brings a sketch of them (`medjax.bin.export --sketch`). Items of the split
that are near-duplicates of training items are counted, beside how many unrelated ones would be taken for such.
"""

import json
from pathlib import Path

import scipy.stats
from absl import flags

import medjax
from medjax.bin import cli, evaluation
from medjax.bin.sketching import readable_items
from medjax.data import DataConfig, Dataset
from medjax.errors import UserError, check_choice
from medjax.evaluation import sketch
from medjax.evaluation.page import Page

_SURE = 0.05
_USELESS = 0.5  # of unrelated items that match: reports from a template, say


def main() -> None:
    """Counts, and says of each modality whether there are more than chance makes."""
    given = flags.FLAGS
    if not given.export or len(given.data) != 1 or given.workdir or given.embeddings:
        raise UserError("pass --export=DIR, an export with a sketch, and --data=DATA, one data set to look for")
    training = sketch.read(given.export)
    dataset = Dataset.open(DataConfig(dir=given.data[0], modalities={}), {})
    check_choice("split", given.split, dataset.manifest.splits)
    kinds = {m: k for m, k in training.kinds.items() if m in dataset.manifest.modalities}
    kinds = {m: k for m, k in kinds.items() if dataset.manifest.modality(m).kind == k}
    if not kinds:
        raise UserError(f"{dataset.manifest.name} has none of the sketch's modalities: {', '.join(training.kinds)}")
    studies = [
        {m: sketch.matches(training, m, items[m]) for m in kinds} for items in readable_items(dataset, given.split)
    ]
    found = {m: [x for study in studies for x in study[m]] for m in kinds}
    results = {
        m: judge(sum(x), len(x), training.false.get(m)) | {"training": training.items[m]} for m, x in found.items()
    }
    touched = sum(any(any(x) for x in study.values()) for study in studies)
    _report(dataset, given.split, results, touched, len(studies))


def judge(found: int, items: int, false: tuple[int, int] | None) -> dict:
    """How many near-duplicates there are and how many chance would make.

    false: (matches, items) among items that are known to be unrelated; None where there were none to count.

    Returns:
      found, items; of the share of false matches its value and the upper end of its exact 95 % interval (Clopper and
      Pearson), of the expected false matches both, and p, the probability of `found` or more at that upper end.
    """
    k, n = false or (0, 0)
    high = float(scipy.stats.beta.ppf(0.975, k + 1, n - k)) if n > k else 1.0
    share = k / n if n else None
    return {
        "found": found,
        "items": items,
        "false_share": share,
        "false_share_high": high,
        "expected_false": None if share is None else share * items,
        "expected_false_high": high * items,
        "p": float(scipy.stats.binom.sf(found - 1, items, high)) if items else 1.0,
        "held_out": n,
    }


def _report(dataset: Dataset, split: str, results: dict, touched: int, studies: int) -> None:
    given, manifest = flags.FLAGS, dataset.manifest
    rows = [
        (
            m,
            f"{r['found']} of {r['items']}",
            "unknown"
            if r["expected_false"] is None
            else f"{r['expected_false']:.1f}, at most {r['expected_false_high']:.1f}",
            f"{r['held_out']}",
            _verdict(r),
        )
        for m, r in results.items()
    ]
    header = ("modality", "near-duplicates of training items", "expected of unrelated items", "measured on", "verdict")
    page = Page(
        "Contamination", f"{split} split of {manifest.name} against the training data of {Path(given.export).name}"
    )
    page.table(header, rows)
    page.text(f"{touched} of {studies} studies have a near-duplicate in at least one modality.")
    page.note(
        "Near-duplicates are what a sketch finds: the same item encoded again, scaled, or with other brightness. "
        "Crops, turned pictures and other pictures of the same patient are not found. What is expected of unrelated "
        "items was measured on the validation split of the training data; of other data it may differ."
    )
    cli.print_table(header, rows)
    print(f"{touched} of {studies} studies have a near-duplicate in at least one modality")
    output = Path(given.output) if given.output else Path(given.export) / "evaluation" / "contamination"
    output.mkdir(parents=True, exist_ok=True)
    about = {"medjax": medjax.__version__, "export": Path(given.export).name}
    about |= {"data": evaluation.describe(manifest) | {"split": split, "examples": studies}}
    about |= {"contamination": {"studies_touched": touched, "modalities": results}}
    (output / "results.json").write_text(json.dumps(about, indent=1) + "\n")
    page.save(output / "report.html")
    print(f"results: {output / 'results.json'}\nreport: {output / 'report.html'}")


def _verdict(result: dict) -> str:
    if not result["held_out"]:
        return "not known: the sketch came without a validation split"
    if result["false_share_high"] > _USELESS:
        return "cannot tell: unrelated items match as often"
    return "more than chance makes" if result["p"] < _SURE else "no more than chance may make"


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
