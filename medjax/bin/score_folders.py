"""Tasks of `medjax.bin.score` whose inputs are folders: generated pictures, maps and segmentations."""

import json
from pathlib import Path

import numpy as np

from medjax.bin.score_result import Scored, mean
from medjax.errors import UserError
from medjax.evaluation import grounding, grounding_scores
from medjax.evaluation.bootstrap import patient_weights
from medjax.evaluation.metrics import ranks, recall_at, weighted_mean
from medjax.evaluation.scoring import folders, masks, pictures
from medjax.methods.encoder import Encoder

_HALVES = 4  # pictures that a set needs to be halved


def images(generated: str, reference: str, patients: str, encoder: Encoder | None, seed: int) -> Scored:
    """SSIM and PSNR pair by pair; through an encoder also recall of each picture's own reference, and the Frechet
    distance of the embeddings. Controls: pairs dealt out anew, and the distance between halves of the reference."""
    pairs = folders.pairs(generated, reference)
    numbers, known = folders.patients(list(pairs), patients)
    weights = patient_weights(numbers, seed=seed)
    made, real = ([folders.picture(p[i]) for p in pairs.values()] for i in (0, 1))
    for name, x, y in zip(pairs, made, real, strict=True):
        if x.shape != y.shape:
            raise UserError(f"picture {name!r} is {list(x.shape)} in {generated} and {list(y.shape)} in {reference}")
    values, facts = {"pairs": _likeness(made, real, weights)}, {}
    torn = {}
    if len({x.shape for x in real}) == 1 and len(real) > 1:
        torn = {"pairs": _likeness(made, real[1:] + real[:1], weights)}
    notes = [f"{generated}: PSNR of equal pictures is infinite and left out of its mean"] if _equal(made, real) else []
    if encoder is not None:
        modality = next((m for m in encoder.modalities if encoder.manifest.modality(m).kind == "image"), None)
        if modality is None:
            raise UserError("this encoder takes no pictures, so their embeddings cannot be compared")
        x, y = (encoder.embed({modality: [p[i] for p in pairs.values()]})[modality] for i in (0, 1))
        values["embeddings"] = recalls(x, y, weights, np.arange(len(x)))
        if len(y) > 1:
            torn["embeddings"] = recalls(x, np.roll(y, 1, axis=0), weights, np.arange(len(x)))
            halves = pictures.frechet_of_halves(y) if len(y) >= _HALVES else None
            facts["frechet_distance"] = {"value": round(pictures.frechet(x, y), 6), "of_reference_halves": halves}
            notes.append(
                f"{generated}: Frechet distance of the embeddings {facts['frechet_distance']['value']:.4f} over "
                f"{len(y)} pictures; between halves of the reference "
                f"{'-' if halves is None else f'{halves:.4f}'}. It has no interval, since resampling biases it, and "
                "compares only at equal numbers of pictures"
            )
    return Scored(values, {"shuffled": torn} if torn else {}, numbers, known, _content(pairs, 1), notes, facts)


def segmentation(predicted: str, reference: str, patients: str, seed: int) -> Scored:
    """Dice, IoU and the 95 % Hausdorff distance of every class but 0. Control: the prediction for another case."""
    pairs = folders.pairs(predicted, reference)
    numbers, known = folders.patients(list(pairs), patients)
    weights = patient_weights(numbers, seed=seed)
    found = [folders.array(p[0])[0] for p in pairs.values()]
    truth, spacings = zip(*(folders.array(p[1]) for p in pairs.values()), strict=True)
    for name, x, y in zip(pairs, found, truth, strict=True):
        if x.shape != y.shape:
            raise UserError(f"mask {name!r} is {list(x.shape)} in {predicted} and {list(y.shape)} in {reference}")
        for mask, where in ((x, predicted), (y, reference)):
            if not np.equal(np.mod(mask, 1), 0).all():
                raise UserError(f"mask {name!r} of {where} holds numbers that are no class; write whole numbers")
    classes = sorted({int(k) for x in (*found, *truth) for k in np.unique(x)} - {0})
    if not classes:
        raise UserError(f"no case of {reference} or {predicted} has a class but 0")
    in_mm = all(s is not None for s in spacings)
    values = _classes(found, truth, spacings, classes, weights, in_mm)
    values["mean of classes"] = mean(values)
    torn = {}
    if len({x.shape for x in truth}) == 1 and len(truth) > 1:
        torn = _classes(found[1:] + found[:1], truth, spacings, classes, weights, in_mm)
        torn["mean of classes"] = mean(torn)
    counts = {str(k): sum(bool((y == k).any()) for y in truth) for k in classes}
    notes = [
        f"{predicted}: class {k} is in no reference; what is called so counts as wrong" for k in counts if not counts[k]
    ]
    notes.append(f"{predicted}: a class counts in the cases where it is predicted or true; distances where it is both")
    facts = {"cases_with_class": counts}
    return Scored(values, {"shuffled": torn} if torn else {}, numbers, known, _content(pairs, 1), notes, facts)


def grounding_maps(maps: str, regions: str, patients: str, validation: tuple[str, str] | None, seed: int) -> Scored:
    """Pointing game, contrast to noise, mean IoU and Dice at the threshold of the validation folders. Controls: a
    random pixel, and the middle of the picture. regions: a folder of masks, or a JSON file of boxes."""
    named, drawn, marked = _maps(maps, regions)
    numbers, known = folders.patients(named, patients)
    weights = patient_weights(numbers, seed=seed)
    chosen = _maps(*validation)[1:] if validation else None
    result = grounding_scores.score(drawn, marked, weights, chosen)
    middle = grounding_scores.score([grounding.centre_prior(m.shape) for m in drawn], marked, weights, None)
    shown = [k for k in result.replicates if k not in ("pointing_chance", "dice_oracle")]
    values = {"maps": {k: result.replicates[k] for k in shown}}
    controls = {
        "random pixel": {"maps": {"pointing": result.replicates["pointing_chance"]}},
        "middle of the picture": {"maps": {k: middle.replicates[k] for k in shown if k in middle.replicates}},
    }
    facts = {"dice_threshold": result.threshold}
    return Scored(values, controls, numbers, known, _content(folders.files(maps), None), (), facts)


def _likeness(made, real, weights: np.ndarray) -> dict[str, np.ndarray]:
    found = {
        "ssim": np.array([pictures.ssim(x, y) for x, y in zip(made, real, strict=True)]),
        "psnr": np.array([pictures.psnr(x, y) for x, y in zip(made, real, strict=True)]),
    }
    return {k: _mean(v, weights) for k, v in found.items() if np.isfinite(v).any()}


def _equal(made, real) -> bool:
    return any(np.array_equal(x, y) for x, y in zip(made, real, strict=True))


def recalls(x: np.ndarray, y: np.ndarray, weights: np.ndarray, own: np.ndarray) -> dict[str, np.ndarray]:
    """recall@k of a partner of the same number, and the mean cosine with the one in the same place.

    x, y: float32[n, E]. weights: float64[1 + r, n]. own: int[n]; equal ones are right for each other.
    """
    one, other = (v / np.linalg.norm(v, axis=1, keepdims=True).clip(1e-12) for v in (x, y))
    found = np.asarray(ranks(one @ other.T, own[:, None] == own), np.float64)
    out = {f"recall@{k}": recall_at(found, k, weights) for k in (1, 5, 10) if k < len(x)}
    return out | {"cosine": weighted_mean((one * other).sum(1).astype(np.float64), weights)}


def _classes(found, truth, spacings, classes: list[int], weights: np.ndarray, in_mm: bool) -> dict:
    out, distance = {}, "hd95_mm" if in_mm else "hd95_pixels"
    for k in classes:
        cases = []
        for x, y, spacing in zip(found, truth, spacings, strict=True):
            p, t = x == k, y == k
            far = masks.hd95(p, t, spacing if in_mm else (1.0,) * p.ndim)
            cases.append({**masks.overlap(p, t), distance: far})
        columns = {m: np.array([c[m] for c in cases]) for m in cases[0]}
        out[f"class {k}"] = {m: _mean(v, weights) for m, v in columns.items() if np.isfinite(v).any()}
    return {k: v for k, v in out.items() if v}


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    return weighted_mean(values[known], weights[:, known])


def _maps(maps: str, regions: str) -> tuple[list[str], list[np.ndarray], list[np.ndarray]]:
    """Names, maps float[H, W] and regions bool[H, W]."""
    if Path(regions).suffix != ".json":
        pairs = folders.pairs(maps, regions)
        drawn = [folders.array(p[0])[0].astype(np.float64) for p in pairs.values()]
        marked = [folders.array(p[1])[0] > 0 for p in pairs.values()]
        names = list(pairs)
    else:
        found, boxes = folders.files(maps), _boxes(regions)
        lacking = sorted(set(found) - set(boxes))
        if lacking:
            raise UserError(f"{regions} has no boxes of {lacking[0]!r} ({len(lacking)} of {len(found)} maps)")
        names, drawn = list(found), [folders.array(p)[0].astype(np.float64) for p in found.values()]
        marked = [grounding.region(boxes[n], m.shape) for n, m in zip(names, drawn, strict=True)]
    for name, m, r in zip(names, drawn, marked, strict=True):
        if m.ndim != 2 or m.shape != r.shape:
            raise UserError(f"map {name!r} is {list(m.shape)} and its region {list(r.shape)}; both must be one [H, W]")
    return names, drawn, marked


def _boxes(path: str) -> dict[str, np.ndarray]:
    try:
        found = {k: np.array(v, np.float64).reshape(-1, 4) for k, v in json.loads(Path(path).read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f'{path} is no JSON of boxes, {{"NAME": [[x0, y0, x1, y1]]}} in shares: {error}') from None
    wrong = [k for k, v in found.items() if (v < 0).any() or (v > 1).any() or (v[:, :2] >= v[:, 2:]).any()]
    if wrong:
        raise UserError(f"a box of {wrong[0]!r} in {path} is not x0 < x1, y0 < y1 in shares of the picture, 0 to 1")
    return found


def _content(found: dict, side: int | None) -> bytes:
    return b"".join((p if side is None else p[side]).read_bytes() for p in found.values())
