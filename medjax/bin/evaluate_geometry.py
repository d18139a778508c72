"""The geometry of embeddings: python -m medjax.bin.evaluate_geometry --workdir=RUN.

How spread out each modality is (uniformity, effective rank), how close the embeddings of a study are (alignment,
cosines), and how far two modalities lie apart (modality gap, separability); against the encoder before training and
embeddings dealt out anew. Then what moving two modalities along the gap between them does to retrieval and zero-shot
scores, the gap being that of another split than the scored one.
"""

import numpy as np
from absl import flags

from medjax.bin import cli
from medjax.bin.evaluation import Subject, load_subject
from medjax.bin.geometry_page import Shapes, Shift, fill, modality_table, pair_table, shift_table
from medjax.errors import UserError
from medjax.evaluation.controls import shuffled
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.gap_shift import gap_vector, shift_pair
from medjax.evaluation.geometry import LIMIT, modality_geometry, pair_geometry

_SHIFT = flags.DEFINE_list(
    "shift",
    [f"{x:g}" for x in np.linspace(-1, 1, 9)],
    "Lambdas at which pairs of modalities are moved along their gap; 0 leaves them, near 0.5 the means meet. Empty: no "
    "curve.",
)
_SOURCES = ("validation", "train")  # of the gap, the first that is not scored


def main() -> None:
    """Measures, prints tables, writes results.json and report.html."""
    subject, shifts = load_subject("geometry"), _shifts()
    table, untrained = subject.table(), subject.untrained()
    result = measure(table)
    if not result.modalities:
        raise UserError(f"no two studies of the {subject.split} split have a modality in common")
    before = measure(untrained.table()) if untrained else None
    torn = pair_geometry(shuffled(table))
    shift = _shift(subject, table, list(result.pairs), shifts)
    shift_before = _shift(untrained, untrained.table(), list(result.pairs), shifts) if untrained else None
    about = subject.about(table)
    tables = [modality_table(result, before), pair_table(result, before, torn)]
    for header, rows in [*tables, shift_table(shift, shift_before)]:
        if rows:
            cli.print_table(header, rows)
            print()
    if shift.skipped:
        print(f"not moved along the gap: {shift.skipped}")
    if shift.no_auroc:
        print(f"no AUROC along the gap: {shift.no_auroc}")
    page = subject.page("Geometry", about)
    fill(page, table, result, before, torn, shift, shift_before)
    controls = {
        "untrained": {**before.as_dict(), "gap_shift": shift_before.as_dict()} if before and shift_before else None,
        "shuffled": {"pairs": {_name(k): p.as_dict() for k, p in torn.items()}},
    }
    settings = {"pairs_formed_of_at_most": LIMIT, "length": "embeddings are scaled to unit length"}
    results = {**about, "settings": settings, **result.as_dict(), "gap_shift": shift.as_dict(), "controls": controls}
    subject.save(results, page)


def measure(table: EmbeddingTable) -> Shapes:
    """Every modality and every pair."""
    return Shapes(modality_geometry(table), pair_geometry(table))


def _name(pair: tuple[str, str]) -> str:
    return " and ".join(pair)


def _shifts() -> list[float]:
    try:
        shifts = sorted({float(x) for x in _SHIFT.value})
    except ValueError:
        raise UserError(f"--shift takes numbers such as -0.5,0,0.5; got {','.join(_SHIFT.value)}") from None
    if not np.isfinite(shifts).all():
        raise UserError(f"--shift takes finite numbers; got {','.join(_SHIFT.value)}")
    return shifts


def _shift(subject: Subject, table: EmbeddingTable, pairs: list[tuple[str, str]], shifts: list[float]) -> Shift:
    """Of every pair whose gap another split tells; text comes second."""
    if not shifts or not pairs:
        return Shift(None, {}, "" if not shifts else "no two modalities can be compared", "")
    found = _other_split(subject)
    if found is None:
        why = "the gap is estimated on another split than the scored one, and there is none"
        return Shift(None, {}, why, "")
    source, other = found
    prompts, no_auroc = _prompts(subject)
    curves = {}
    for x, y in (p if p[0] != "text" else p[::-1] for p in pairs):
        if (gap := gap_vector(other, x, y)) is not None:
            curves[x, y] = shift_pair(table, x, y, gap, shifts, prompts, subject.findings)
    return Shift(source, curves, "", no_auroc)


def _other_split(subject: Subject) -> tuple[str, EmbeddingTable] | None:
    for split in _SOURCES:
        try:
            if split != subject.split:
                return split, subject.table(split)
        except UserError:  # there is no such split
            continue
    return None


def _prompts(subject: Subject) -> tuple[dict, str]:
    """The embedded prompts of the findings, and why there are none, or ""."""
    if not subject.findings or "text" not in subject.modalities:
        return {}, "the data set has no prompts, or the encoder reads no text"
    try:
        return subject.prompts(subject.findings), ""
    except UserError as error:
        return {}, str(error)


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
