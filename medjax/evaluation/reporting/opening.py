"""The first page: what was asked, on whom, how sure, and what has to be known before a number is read."""

from collections.abc import Sequence

from medjax.evaluation.page import Page
from medjax.evaluation.reporting.gathering import Evaluation
from medjax.evaluation.reporting.reading import Measurement, headlines
from medjax.evaluation.reporting.vocabulary import section

Read = Sequence[tuple[Evaluation, Sequence[Measurement]]]


def opening(page: Page, read: Read) -> None:
    """Writes it. read: evaluations with all their measurements."""
    page.heading("What was asked")
    asked = {k: section(k).asks for _, found in read for k in headlines(list(found)) if section(k).asks}
    page.list([f"{section(k).title}: {asks}" for k, asks in asked.items()])
    page.heading("On whom")
    page.table(("data set", "split", "studies", "patients", "split opened so far", "licence"), whom(read))
    for note in cautions(read):
        page.note(note)
    page.heading("How sure")
    for how in dict.fromkeys(e.content["intervals"] for e, _ in read):
        page.text(f"Intervals: {how}.")
    page.text(
        "Made anew with other patients of the same kind, 95 of 100 such intervals would hold the true value. An "
        "interval says nothing about other hospitals, devices or times. Beside each score stand its negative controls: "
        "what guessing, the same model before training, shuffled outputs, or age and sex alone reach. A score means "
        "something where its whole interval is better than the strongest control."
    )


def whom(read: Read) -> list[tuple]:
    """A row for each list of examples that was scored."""
    rows: dict[str, list] = {}
    for e, _ in read:
        d = e.data
        row = rows.setdefault(d["example_list_sha256"], [d, None])
        row[1] = max((x for x in (row[1], d["times_opened"]) if x is not None), default=None)
    return [
        (
            *(d["name"], d["split"], d["examples"], d["patients"] if d["patients_known"] else "not known"),
            "not known" if times is None else "once" if times == 1 else f"{times} times",
            d["licence"] + (f" ({', '.join(d['terms'])})" if d["terms"] else ""),
        )
        for d, times in rows.values()
    ]


def cautions(read: Read) -> list[str]:
    """What the data do to the numbers, each said once."""
    out: dict[str, None] = {}
    several = len({e.data["name"] for e, _ in read}) > 1
    for e, _ in read:
        d = e.data
        out |= dict.fromkeys(f"{d['name']}: {note}" if several else note for note in d["notes"])
        if d["synthetic"] and not any("ynthetic" in n for n in d["notes"]):
            out[f"{d['name']} is synthetic: its scores say that the software works, and nothing about medicine."] = None
        if d["texts_from_labels"]:
            out[f"The texts of {d['name']} were made from its labels, so training on them has seen the labels."] = None
        if not d["patients_known"]:
            out[f"Patients of {d['name']} are not known, so intervals may be too narrow."] = None
        if d["patients"] < 50:
            few = f"{d['patients']} {'patients' if d['patients_known'] else 'studies'}"
            out[f"{d['name']}, {d['split']} split: only {few}. Intervals of so few are wide and themselves rough."] = (
                None
            )
        if (d["times_opened"] or 0) > 1 and d["split"] == "test":
            most = max(x.data["times_opened"] or 0 for x, _ in read if x.data["name"] == d["name"])
            out[
                f"The test split of {d['name']} has been scored {most} times on this account. Who looks often and "
                "keeps the best finds a good score by chance."
            ] = None
    return list(out)
