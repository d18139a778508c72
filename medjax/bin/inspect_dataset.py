"""What a data set holds, as one page: python -m medjax.bin.inspect_dataset --data=DATA.

Counts, missing modalities and values, label prevalence, random examples (not of sensitive data), and what a batch of
`--batch_size` will bring: how many pairs of it share a patient, a study or a text, and which option keeps those out of
the negatives. Nothing is trained and nothing of the data set is changed.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import flags

from medjax.bin import cli
from medjax.data import DataConfig, Dataset
from medjax.data.curation.inspection import RELATIONS, SplitSummary, expected_pairs, rows_affected, summarise
from medjax.data.manifest import Manifest
from medjax.errors import UserError
from medjax.evaluation.page import Page
from medjax.evaluation.thumbnails import thumbnail

_DATA = flags.DEFINE_string("data", None, "Folder of the data set.")
_OUTPUT = flags.DEFINE_string("output", "", "The page to write; default: inspection.html in the data set's folder.")
_BATCH = flags.DEFINE_integer("batch_size", 256, "Global batch size of the forecast.", lower_bound=2)
_EXAMPLES = flags.DEFINE_integer("examples", 6, "Random examples of each split to show; 0 for none.", lower_bound=0)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the choice of examples.")
_ADVICE = {"patient": "same_patient=mask", "group": "same_group=mask", "text": "same_text=positive (or mask)"}
_NAMED = {"patient": "patient", "group": "study", "text": "text"}


def main() -> None:
    """Prints the counts and the forecast, writes the page."""
    if not _DATA.value:
        raise UserError("pass --data=DIR, a data set made by medjax.bin.build_dataset")
    dataset = Dataset.open(DataConfig(dir=_DATA.value, modalities={}))
    manifest = dataset.manifest
    summaries = {split: summarise(dataset.directory, manifest, split) for split in manifest.splits}
    page = Page(f"Data set {manifest.name}", f"{manifest.source}; licence: {manifest.licence}")
    for note in manifest.notes:
        page.note(note)
    for title, header, rows in _tables(manifest, summaries):
        if rows:
            print(f"\n{title}")
            cli.print_table(header, rows)
            page.heading(title)
            page.table(header, rows)
    if manifest.sensitive:
        page.note("The data set is marked sensitive: no pictures and no texts are shown.")
    elif _EXAMPLES.value:
        _show_examples(page, dataset)
    path = Path(_OUTPUT.value or dataset.directory / "inspection.html")
    page.save(path)
    print(f"\n{path}")


def _tables(manifest: Manifest, summaries: dict[str, SplitSummary]) -> Iterator[tuple[str, list[str], list[list]]]:
    splits = list(summaries)
    patients = "patients" if manifest.patients_known else "patients (unknown: each study is one)"
    yield "Studies", ["", *splits], [
        ["studies", *(s.examples for s in summaries.values())],
        [patients, *_distinct(summaries, "patient")],
        ["distinct texts", *_distinct(summaries, "text")],
        ["rejected when built", manifest.rejected, *[""] * (len(splits) - 1)],
    ]  # fmt: skip
    yield "Modalities present together (share of studies)", ["", *splits], _combinations(summaries)
    yield "Items a study (studies)", ["modality", "items", *splits], _item_counts(manifest, summaries)
    yield "Labels (positive of known)", ["label", *splits], [
        [label, *(_prevalence(s.positive()[i], s.known()[i]) for s in summaries.values())]
        for i, label in enumerate(manifest.labels)
    ]  # fmt: skip
    yield "Values observed (of the studies that have the modality)", ["modality", "value", *splits], [
        [m, name, *(_share(s.observed[m][i], s.examples - s.items[m][0]) for s in summaries.values())]
        for m, x in manifest.modalities.items() if x.kind == "labs" for i, name in enumerate(x.names)
    ]  # fmt: skip
    title = f"Forecast for random batches of {_BATCH.value} from the train split"
    yield (
        title,
        ["pairs of one", "pairs in a batch", "of all pairs", "examples with one", "option"],
        _forecast(summaries),
    )


def _distinct(summaries: dict[str, SplitSummary], name: str) -> list[int]:
    return [len(np.unique(s.ids[name][s.ids[name] != 0])) for s in summaries.values()]


def _combinations(summaries: dict[str, SplitSummary]) -> list[list]:
    total = sum((s.present for s in summaries.values()), start=type(next(iter(summaries.values())).present)())
    return [
        [" + ".join(names) or "none", *(f"{_share(s.present[names], s.examples)}" for s in summaries.values())]
        for names, _ in total.most_common()
    ]


def _item_counts(manifest: Manifest, summaries: dict[str, SplitSummary]) -> list[list]:
    rows = []
    for m in manifest.modalities:
        for n in sorted({n for s in summaries.values() for n in s.items[m]}):
            rows.append([m, n, *(s.items[m][n] for s in summaries.values())])
    return rows


def _forecast(summaries: dict[str, SplitSummary]) -> list[list]:
    train = summaries.get("train")
    if train is None or train.examples < 2:
        return []
    size = min(_BATCH.value, train.examples)
    rows = []
    for name in RELATIONS:
        pairs, rows_hit = expected_pairs(train.ids[name], size), rows_affected(train.ids[name], size)
        share = pairs / (size * (size - 1) / 2)
        advice = _ADVICE[name] if pairs else "nothing to do"
        rows.append([_NAMED[name], f"{pairs:.3g}", f"{share:.2%}", f"{rows_hit:.1%}", advice])
    return rows


def _show_examples(page: Page, dataset: Dataset) -> None:
    rng = np.random.default_rng(_SEED.value)
    for split, info in dataset.manifest.splits.items():
        page.heading(f"Random examples: {split}")
        chosen = np.sort(rng.choice(info.examples, min(_EXAMPLES.value, info.examples), replace=False))
        cards = []
        for row in chosen:
            shown = "".join(
                f"<p><b>{m}</b><br>{thumbnail(dataset, split, int(row), m)}</p>" for m in dataset.manifest.modalities
            )
            cards.append(("", f'<p class="small">record {row}</p>{shown}'))
        page.cards(cards)


def _prevalence(positive: int, known: int) -> str:
    return f"{positive} of {known} ({_share(positive, known)})"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
