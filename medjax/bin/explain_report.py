"""Tables, pictures and the page of `medjax.bin.explain`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medjax.bin import cli
from medjax.bin.explain_grounding import CONTROLS, Scores
from medjax.bin.explain_pictures import figures, spans
from medjax.bin.explain_studies import FINDING, POSITIVE, Asked, Studies
from medjax.data.records import decode_text
from medjax.evaluation import plots
from medjax.evaluation.bootstrap import verdict
from medjax.evaluation.explain.drawing import Drawn
from medjax.evaluation.explain.explainer import EXPLANATIONS
from medjax.evaluation.grounding_scores import Grounded, gain, macro
from medjax.evaluation.page import Page

_ALL = "all findings"
_PICTURES, _MAPS = "pictures", "maps"


@dataclass(frozen=True)
class Shown:
    """One explained study. pngs: (file, bytes), none where they are not to be shown. methods: those that fit."""

    finding: str
    modality: str
    row: int
    methods: tuple[str, ...]
    pngs: tuple[tuple[str, bytes], ...]


def show(
    asked: Asked,
    studies: Studies,
    modalities: Mapping[str, Sequence[str]],
    methods: Sequence[str],
    count: int,
    sensitive: bool,
) -> list[Shown]:
    """Explains `count` studies of each finding in these modalities of it, writes their maps, and draws them unless the
    data set is sensitive and `sensitive` not given."""
    out, folder = [], asked.subject.output
    drawn = sensitive or not studies.subject.dataset.manifest.sensitive
    for finding, of in modalities.items():
        for m in of:
            at = studies.positive(finding, m)[:count]
            if len(at):
                out += _show_one(asked, studies, finding, m, at, asked.explainer.fitting(m, methods), drawn)
    (folder / _PICTURES).mkdir(parents=True, exist_ok=True)
    for s in out:
        for name, png in s.pngs:
            (folder / name).write_bytes(png)
    return out


def _show_one(asked: Asked, studies: Studies, finding: str, modality: str, at, methods, drawn: bool) -> list[Shown]:
    dataset = studies.subject.dataset
    transform, schema = dataset.transforms[modality], dataset.manifest.modality(modality)
    items = studies.items(modality, studies.table.rows[at])
    to = asked.target(finding, studies.split, at)
    maps = {k: asked.explainer.maps(modality, k, items, to) for k in methods}
    _save_maps(asked.subject.output / _MAPS / f"{finding}-{modality}.npz", transform, items, maps)
    out = []
    for i, item in enumerate(items):
        pngs = []
        if drawn:
            layers = [Drawn(k.replace("_", " "), maps[k][i], EXPLANATIONS[k].signed) for k in methods]
            boxes = studies.boxes.get(finding, {}).get(item.row, ()) if transform.kind == "image" else ()
            for n, png in enumerate(figures(transform, schema, item, layers, boxes)):
                pngs.append((f"{_PICTURES}/{finding}-{modality}-{item.row}-{n}.png", png))
        out.append(Shown(finding, modality, item.row, tuple(methods), tuple(pngs)))
    return out


def _save_maps(path: Path, transform, items, maps) -> None:
    """`{method}/{row}` float32 of the input's shape, of a text of its tokens with `spans/{row}` int64[tokens, 2]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"{k}/{item.row}": x for k, found in maps.items() for item, x in zip(items, found, strict=True)}
    if transform.kind == "text":
        arrays |= {f"spans/{item.row}": np.array(spans(transform, decode_text(item.raw))) for item in items}
    np.savez_compressed(path, **arrays)


def console(scores: Scores) -> None:
    """Prints the scores, if there are any."""
    if scores:
        cli.print_table(*_table(scores))


def _with_macro(scores: Scores) -> dict[str, Mapping[str, Mapping[str, Grounded]]]:
    """With the mean over findings where there are several."""
    if len(scores) < 2:
        return dict(scores)
    first = next(iter(scores.values()))
    whole = {k: {c: macro([f[k][c] for f in scores.values()]) for c in of} for k, of in first.items()}
    return {**scores, _ALL: whole}


def _table(scores: Scores) -> tuple[tuple, list[tuple]]:
    header = (
        "finding",
        "explanation",
        "pictures",
        "pointing game",
        "chance",
        "pixel AUROC",
        "of a wrong prompt",
        "Dice",
    )
    rows = []
    for finding, of in _with_macro(scores).items():
        for method, by in of.items():
            t, chance = by["trained"], by["trained"].interval("pointing_chance")
            wrong = by["wrong prompt"].interval("pixel_auroc")
            numbers = t.interval("pointing"), f"{chance.value:.3f}", t.interval("pixel_auroc")
            rows.append((finding, method, t.examples, *numbers, f"{wrong.value:.3f}", t.interval("dice") or "-"))
    return header, rows


def results_of(asked: Asked, findings, methods: Sequence[str], scores: Scores, shown: Sequence[Shown]) -> dict:
    """What results.json says beside its head."""
    modalities = dict.fromkeys(s.modality for s in shown)
    return {
        "against": asked.against,
        "prompts": {k: {"positive": list(f.positive), "negative": list(f.negative)} for k, f in findings.items()},
        "methods": {m: asked.explainer.fitting(m, methods) for m in modalities},
        "tokens": {m: asked.explainer.token_space(m) for m in modalities},
        "grounding": {
            finding: {
                method: {
                    **by["trained"].as_dict(),
                    "controls": {c: by[c].as_dict() for c in CONTROLS},
                    "gain": {c: _gains(by, c) for c in ("untrained", "wrong prompt")},
                }
                for method, by in of.items()
            }
            for finding, of in _with_macro(scores).items()
        },
        "shown": [
            {"finding": s.finding, "modality": s.modality, "row": s.row, "pictures": [name for name, _ in s.pngs]}
            for s in shown
        ],
    }


def _gains(by: Mapping[str, Grounded], control: str) -> dict:
    found = {k: gain(by["trained"], by[control], k) for k in ("pointing", "pixel_auroc")}
    return {k: i.as_dict() | {"verdict": verdict(i)} for k, i in found.items()}


def fill(page: Page, asked: Asked, findings, scores: Scores, shown: Sequence[Shown], count: int) -> None:
    """What the page says below its head. count: how many studies of each finding were asked for."""
    compared = {
        FINDING: "the mean of the finding's positive prompts less that of its negative ones",
        POSITIVE: "the mean of the finding's positive prompts",
    }.get(asked.against, f"the study's own embedding of its {asked.against}")
    page.text(
        f"Explained is the inner product of an input's embedding with {compared}. A map says what moved the encoder, "
        "and not whether it is right; maps of different explanations need not agree."
    )
    used = dict.fromkeys(k for s in shown for k in s.methods)
    page.table(("explanation", "what it shows"), [(k.replace("_", " "), EXPLANATIONS[k].words) for k in used])
    if "similarity" in used:
        modalities = dict.fromkeys(s.modality for s in shown if "similarity" in s.methods)
        page.table(("tokens of", "for similarity maps"), [(m, asked.explainer.token_space(m)) for m in modalities])
    if scores:
        _fill_scores(page, scores)
    for finding, f in findings.items() if count else ():
        some = [s for s in shown if s.finding == finding]
        page.heading(finding.replace("_", " "))
        page.text(f"Present: {'; '.join(f.positive)}. Absent: {'; '.join(f.negative)}.")
        if not some:
            page.note("No study of this split has this finding and a modality that shows it.")
        if any(not s.pngs for s in some):
            page.note(
                "Studies are not shown: the data set is marked sensitive. --show_sensitive shows them; their maps, "
                "which hold no pixels, are written in any case."
            )
        for s in some:
            for _, png in s.pngs:
                page.figure(png, f"{s.modality} of the study in row {s.row}")


def _fill_scores(page: Page, scores: Scores) -> None:
    page.heading("Do the maps point at what was marked?")
    page.text(
        "Pointing game: how often the highest pixel lies in a box; chance: how often a random pixel would. "
        "Contrast to noise: difference of the means inside and outside by the root of their summed variances. IoU: "
        "mean over the thresholds .1 to .5, of cosines as they are and of other maps from 0 to 1. Dice: at the "
        "threshold that was best on the validation split, and at the best one of this split (oracle), which nobody "
        "can know beforehand. Pixels that the encoder did not see do not count. The controls are a random number "
        "for each token, a blot in the middle, the encoder before training, and the prompts of another finding: a "
        "map that is as good for those shows what stands out in the picture, and not what was asked."
    )
    whole = _with_macro(scores)
    header = (
        "explanation",
        "maps of",
        "pointing game",
        "chance",
        "contrast to noise",
        "IoU",
        "AUROC",
        "Dice",
        "oracle",
    )
    names, values, chance = [], [], []
    for finding, of in whole.items():
        page.heading(f"{finding.replace('_', ' ')} ({next(iter(of.values()))['trained'].examples} pictures)", 3)
        rows = []
        for method, by in of.items():
            rows += [(method.replace("_", " "), name, *_cells(by[name])) for name in ("trained", *CONTROLS)]
            names.append(f"{finding}, {method}")
            values.append(by["trained"].interval("pointing"))
            chance.append(by["trained"].interval("pointing_chance").value)
        page.table(header, rows)
        for method, by in of.items():
            page.text(f"{method.replace('_', ' ').capitalize()}: {_verdicts(by)}.")
    page.figure(plots.recall_bars(names, values, chance, "pointing game"), "Pointing game with intervals and chance")


def _cells(g: Grounded) -> list[object]:
    names = ("pointing", "pointing_chance", "contrast_to_noise", "mean_iou", "pixel_auroc", "dice", "dice_oracle")
    return [f"{i.value:.3f}" if k == "pointing_chance" else i for k in names for i in [g.interval(k) or "-"]]


def _verdicts(by: Mapping[str, Grounded]) -> str:
    above = by["trained"].above_chance
    said = [f"points at boxes {above} more often than chance ({verdict(above)})"]
    for control in ("untrained", "wrong prompt"):
        difference = gain(by["trained"], by[control], "pixel_auroc")
        said.append(f"AUROC {difference} above {control} ({verdict(difference)})")
    return "; ".join(said)
