"""Scores under corruption and without modalities: python -m medjax.bin.evaluate_robustness --workdir=RUN.

Raw pictures, ECGs, volumes, lab values and texts are corrupted in several ways to five degrees, embedded, and scored
as the intact split is: by prompts, by probes fitted on intact features, or by retrieval. Then modalities are removed,
in all combinations, or their embeddings damaged (--measure=missing, for which stored embeddings will do). The intact
split, the untrained encoder and chance stand beside the scores; with --baseline=RESULTS.JSON of another model errors
are also given relative to it, mCE being 100 for that model.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from absl import flags

from medjax.bin import cli, robustness_report
from medjax.bin.evaluation import Subject, load_subject
from medjax.bin.progress import Progress
from medjax.bin.robustness_report import Measured, Missing
from medjax.bin.robustness_scores import KINDS, Scores, chosen, limited
from medjax.bin.robustness_settings import Baseline, Settings, corruptions
from medjax.errors import UserError, check_choice
from medjax.evaluation.corruptions import LEVELS, SETS, Corruption
from medjax.evaluation.corruptions.embedding import Corruptor
from medjax.evaluation.missing_scores import missing_scores
from medjax.evaluation.robustness import Curve
from medjax.evaluation.robustness_scores import Score

_MEASURE = flags.DEFINE_list("measure", ["corruptions", "missing"], "What to measure: corruptions, missing.")
_SCORES = flags.DEFINE_list(
    "scores", [], f"Of {', '.join(KINDS)}; default: the first of them that is possible. Text is scored by retrieval."
)
_IMAGE_SET = flags.DEFINE_enum(
    "image_set", "chest", list(SETS), "Whose corruptions and severities pictures get, a data set of MedMNIST-C."
)
_MODALITIES = flags.DEFINE_list("modalities", [], "Which to corrupt, one at a time; default: all of the encoder.")
_KINDS = flags.DEFINE_list("kinds", [], "Names of corruptions, such as jpeg,noise; default: all of each modality.")
_LEVELS = flags.DEFINE_list("levels", [str(k) for k in LEVELS], "Of 1 to 5.")
_LIMIT = flags.DEFINE_integer("limit", 0, "Only the first so many patients of the split; 0 for all.", lower_bound=0)
_PIXELS = flags.DEFINE_integer(
    "image_pixels",
    0,
    "Shrink pictures to so many pixels along the shorter side before they are corrupted; 0: as they are. An encoder "
    "that shrinks large pictures averages the noise of single pixels out, and large ones take long.",
    lower_bound=0,
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the corruptions.", lower_bound=0)
_BASELINE = flags.DEFINE_string("baseline", "", "results.json of this program for another model.")
_EXAMPLES = flags.DEFINE_bool("examples", True, "Show an example at each level, unless the data are sensitive.")


@dataclass(frozen=True)
class _Task:
    """What is measured of whom. before: the same scores of the untrained encoder, where there is one."""

    subject: Subject
    scores: Scores
    before: Scores | None
    found: dict[str, dict[str, Measured]] = field(default_factory=dict)

    def untrained(self, modality: str, name: str) -> np.ndarray | None:
        """The replicates of a score of the untrained encoder on the intact split."""
        score = self.before.of_corruption(modality).get(name) if self.before else None
        return score.measure(self.before.table)[0] if score else None


def main() -> None:
    """Evaluates, prints tables, writes results.json and report.html."""
    for name in _MEASURE.value or [""]:
        check_choice("--measure", name, ("corruptions", "missing"))
    for name in _SCORES.value:
        check_choice("--scores", name, KINDS)
    levels = _levels()
    subject = load_subject("robustness")
    if "corruptions" in _MEASURE.value and subject.dataset is None:
        raise UserError("stored embeddings hold no raw items to corrupt; pass --measure=missing, or a run or an export")
    wanted = chosen(subject, _SCORES.value)
    kinds: Mapping[str, tuple[Corruption, ...]] = {}
    if "corruptions" in _MEASURE.value:
        kinds = corruptions(subject, _IMAGE_SET.value, _MODALITIES.value, _KINDS.value)
    named = {m: {c.name: c.severities for c in of} for m, of in kinds.items()}
    settings = Settings(_IMAGE_SET.value, named, levels, _SEED.value, _PIXELS.value, _LIMIT.value)
    _publish(_task(subject, wanted), kinds, settings)


def _task(subject: Subject, wanted: tuple[str, ...]) -> _Task:
    scores = Scores(subject, limited(subject.table(), _LIMIT.value), wanted)
    untrained = subject.untrained()
    before = Scores(untrained, limited(untrained.table(), _LIMIT.value), wanted) if untrained else None
    return _Task(subject, scores, before)


def _publish(task: _Task, kinds: Mapping[str, tuple[Corruption, ...]], settings: Settings) -> None:
    subject = task.subject
    about = subject.about(task.scores.table)
    baseline = Baseline(_BASELINE.value, settings, about["data"]["example_list_sha256"]) if _BASELINE.value else None
    page = subject.page("Robustness", about)
    results: dict[str, Any] = {**about, "settings": settings.as_dict()}
    if kinds:
        corruptor = _corruptor(task, settings)
        for note in _resolution_notes(corruptor, kinds):
            print(note)
            page.note(note)
        _measure_corruptions(task, corruptor, kinds, settings)
        results["corruptions"] = robustness_report.corruptions(task.found, baseline, page, settings)
        if _EXAMPLES.value:
            robustness_report.examples(subject, corruptor, kinds, settings.levels, page)
    if "missing" in _MEASURE.value:
        results["missing"] = robustness_report.missing(_measure_missing(task), page)
    subject.save(results, page)


def _levels() -> tuple[int, ...]:
    for level in _LEVELS.value or [""]:
        check_choice("--levels", level, [str(k) for k in LEVELS])
    return tuple(sorted({int(k) for k in _LEVELS.value}))


def _corruptor(task: _Task, settings: Settings) -> Corruptor:
    subject, table = task.subject, task.scores.table
    where = subject.encoder.encode, subject.dataset, subject.split, table
    return Corruptor(*where, settings.seed, flags.FLAGS.batch_size, settings.image_pixels)


def _resolution_notes(corruptor: Corruptor, modalities: Iterable[str]) -> Iterator[str]:
    """Where pictures are so large that the encoder, which shrinks them, hardly sees the noise."""
    for m in modalities:
        there = np.flatnonzero(corruptor.table.present[m])
        if corruptor.dataset.manifest.modality(m).kind == "image" and len(there):
            size = corruptor.dataset.transforms[m].config.size
            side = min(corruptor.example(m, int(there[0]))[0].shape[:2])
            if side > 2 * size:
                yield (
                    f"{m} is corrupted at {side} pixels and the encoder sees {size}, so that noise of single pixels is "
                    f"averaged out; --image_pixels={size} corrupts what it sees."
                )


def _measure_corruptions(
    task: _Task, corruptor: Corruptor, kinds: Mapping[str, tuple[Corruption, ...]], settings: Settings
) -> None:
    total, done, progress = sum(len(of) for of in kinds.values()), 0, Progress("corruptions")
    for modality, of in kinds.items():
        scores = task.scores.of_corruption(modality)
        if not scores or not corruptor.table.present[modality].any():
            print(f"{modality} is not corrupted: nothing can be scored by it")
            done += len(of)
            continue
        curves: dict[str, list[Curve]] = {name: [] for name in scores}
        for corruption in of:
            tables = {0: corruptor.table, **corruptor.tables(modality, corruption, settings.levels)}
            for name, score in scores.items():
                curves[name].append(_curve(corruption, score, tables))
            done += 1
            progress(done, total)
        task.found[modality] = {
            name: Measured(score, curves[name], task.untrained(modality, name)) for name, score in scores.items()
        }
    if not task.found:
        raise UserError("no corruption can be scored; choose other --modalities or --scores")


def _curve(corruption: Corruption, score: Score, tables: Mapping[int, Any]) -> Curve:
    found = {level: score.measure(table) for level, table in tables.items()}
    value, error = ({k: v[i] for k, v in found.items()} for i in (0, 1))
    return Curve(corruption.name, value, error, corruption.monotone)


def _measure_missing(task: _Task) -> dict[str, Missing]:
    """By score; empty, with a line that says why, where there are not two modalities to take away from."""
    inputs, table = task.scores.inputs, task.scores.table
    if len(inputs) < 2:
        print(f"missing modalities are not measured: beside text there is {' and '.join(inputs) or 'none'} alone")
        return {}
    shown = (*inputs, "text") if "text" in task.subject.modalities and "retrieval" in task.scores.wanted else inputs
    keep = table.all_present(shown)
    complete = table.where(keep)
    if len(complete) < 2:
        raise UserError(f"fewer than two examples have all of {', '.join(shown)}; pass --measure=corruptions")
    before = {}
    if task.before:
        theirs = task.before.table.where(keep)
        before = {k: s.measure(theirs)[0] for k, s in task.before.of_missing(theirs).items()}
    return {
        name: Missing(score, missing_scores(score, complete, inputs, _SEED.value), before.get(name))
        for name, score in task.scores.of_missing(complete).items()
    }


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
