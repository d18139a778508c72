"""Can an encoder's tokens be read as a segmentation: python -m medjax.bin.evaluate_segmentation --workdir=RUN.

The encoder stays as it is; heads are trained on the tokens of its last layer, and the masks of the data set (a modality
of labelled volumes, as --source=decathlon writes it). Dice is measured on the grid of the original volume, beside the
same heads on an untrained encoder and on bare intensities, and beside a mask that never looks at the volume.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np
from absl import flags

from medjax.bin import cli
from medjax.bin.evaluation import EncoderSubject, load_subject
from medjax.errors import UserError, check_choice, suggest
from medjax.evaluation import segmentation
from medjax.evaluation.bootstrap import Interval, number_patients, patient_weights, summarise, verdict
from medjax.evaluation.explain.geometry import placements, token_axes
from medjax.evaluation.segmentation import Studies
from medjax.methods.encoder import Encoder

_MODALITY = flags.DEFINE_string("modality", "volume", "Whose tokens.")
_MASK = flags.DEFINE_string("mask", "mask", "Modality of the labelled volumes.")
_HEADS = flags.DEFINE_list("heads", ["linear", "unetr"], "linear, or a small UNETR with a skip from the intensities.")
_STEPS = flags.DEFINE_integer("head_steps", 200, "Training steps of a head.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the heads' parameters and batches.")


def main() -> None:
    """Trains the heads on the training split, chooses on the validation split, and measures."""
    subject = load_subject("segmentation")
    names = _classes(subject)
    for head in _HEADS.value:
        check_choice("head in --heads", head, ("linear", "unetr"))
    if _STEPS.value < 1:
        raise UserError(f"--head_steps={_STEPS.value} must be positive")
    about = subject.about(subject.table())
    splits = {k: _studies(subject, subject.encoder, k) for k in ("train", "validation", subject.split)}
    untrained = {k: _regridded(subject, subject.untrained().encoder, k, v) for k, v in splits.items()}
    bare = {k: replace(v, grids=segmentation.raw_patches(v.pictures, v.grids.shape[1:-1])) for k, v in splits.items()}
    test, count = splits[subject.split], len(names)
    weights = patient_weights(test.patients)
    values, steps = {}, {}
    for head in _HEADS.value:
        for name, given in (("encoder", splits), ("untrained encoder", untrained), ("intensities", bare)):
            fitted = segmentation.fit(given["train"], given["validation"], count, head, _STEPS.value, seed=_SEED.value)
            values[head, name] = segmentation.dice(fitted.predict(given[subject.split]), test.masks, count)
            steps[head, name] = fitted.step
            print(f"{head} head on {name}: step {fitted.step} of {_STEPS.value} chosen", flush=True)
    blind = segmentation.most_frequent(splits["train"], count)
    predicted = [segmentation.to_original(blind, p) for p in test.places]
    values["none", "most frequent class at each place"] = segmentation.dice(predicted, test.masks, count)
    empty = [np.zeros_like(m) for m in test.masks]
    values["none", "empty mask"] = segmentation.dice(empty, test.masks, count)
    _report(subject, about, names[1:], values, weights, steps, {k: len(v) for k, v in splits.items()})


def _classes(subject) -> tuple[str, ...]:
    """Names by value of the mask.

    Raises:
      UserError: there is no encoder of volumes, or no such masks.
    """
    if not isinstance(subject, EncoderSubject):
        raise UserError("evaluate_segmentation takes an encoder: pass --workdir or --export")
    check_choice("--modality", _MODALITY.value, subject.modalities)
    manifest = subject.dataset.manifest
    if subject.encoder.transforms[_MODALITY.value].kind != "volume":
        raise UserError(f"--modality={_MODALITY.value} is no volume; masks are of volumes")
    if _MASK.value not in manifest.modalities:
        hint = suggest(_MASK.value, tuple(manifest.modalities))
        raise UserError(f"{manifest.name} has no masks {_MASK.value!r}; {hint}, or build one with --source=decathlon")
    found = manifest.modality(_MASK.value)
    if found.kind != "volume" or len(found.names) < 2:
        raise UserError(f"modality {_MASK.value!r} of {manifest.name} is no volume whose manifest names its labels")
    for split in ("train", "validation", subject.split):
        check_choice("split", split, manifest.splits)
    return found.names


def _token_grids(encoder: Encoder) -> Callable:
    """(batch) -> [b, N, L, D], before any projection."""
    m = _MODALITY.value

    @jax.jit
    def tokens(params, state, batch):
        features, _ = encoder.method.towers.apply(params, state.get("batch_stats", {}), m, batch, None, False)
        return features.patches.reshape(*batch.items[m].mask.shape, *features.patches.shape[1:])

    return lambda batch: np.asarray(tokens(encoder.params, encoder.state, batch.select((m,))), np.float32)


def _regridded(subject: EncoderSubject, encoder: Encoder, split: str, like: Studies) -> Studies:
    """The same studies with the tokens of another encoder."""
    tokens, rows = _token_grids(encoder), []
    for batch in subject.batches(split):
        there = batch.valid & batch.items[_MODALITY.value].mask[:, 0]
        rows.append(tokens(batch)[there, 0])
    return replace(like, grids=np.concatenate(rows).reshape(like.grids.shape))


def _studies(subject: EncoderSubject, encoder: Encoder, split: str) -> Studies:
    m, tokens = _MODALITY.value, _token_grids(encoder)
    transform, module = encoder.transforms[m], encoder.method.towers.modules[m]
    pictures, grids, targets, masks, places, patients, first = [], [], [], [], [], [], 0
    for batch in subject.batches(split):
        x = tokens(batch)
        rows = np.flatnonzero(batch.valid & batch.items[m].mask[:, 0])
        for i, raw in zip(rows, subject.dataset.raw_items(split, (first + rows).tolist()), strict=True):
            picture, mask = np.asarray(batch.items[m].value[i, 0]), _mask(raw, first + i)
            pictures.append(picture)
            grids.append(x[i, 0].reshape(*[a.count for a in token_axes(module, picture)], -1))
            places.append(placements(transform, raw[m][0]))
            targets.append(segmentation.to_encoder(mask, places[-1]))
            masks.append(mask)
            patients.append(batch.ids["patient"][i])
        first += batch.size
    if not masks:
        raise UserError(f"the {split} split has no {m} that can be read")
    stacked = (np.stack(x) for x in (pictures, grids, targets))
    return Studies(*stacked, masks, places, number_patients(np.stack(patients)))


def _mask(raw, row: int) -> np.ndarray:
    """uint8 of the volume's shape.

    Raises:
      UserError: the study has no mask, or one of another shape.
    """
    volume, mask = raw[_MODALITY.value][0], raw[_MASK.value][:1]
    if not mask or mask[0].shape != volume.shape[:3]:
        found = mask[0].shape if mask else "none"
        raise UserError(f"row {row}: the mask has shape {found}, its volume {volume.shape[:3]}; correct the data set")
    return np.asarray(mask[0].crop((0, 0, 0), mask[0].shape)).astype(np.uint8)


def _report(subject, about, names, values, weights, steps, studies) -> None:
    rows, results = [], []
    for (head, features), x in values.items():
        found = segmentation.dice_intervals(x, weights)
        rows.append((head, features, *found))
        of = {k: v.as_dict() for k, v in zip((*names, "mean"), found, strict=True)}
        results.append({"head": head, "features": features, "step": steps.get((head, features)), "dice": of})
    compared = [
        (head, name, _difference(values[head, "encoder"], values[head, name], weights))
        for head in _HEADS.value
        for name in ("untrained encoder", "intensities")
    ]
    page = subject.page("Segmentation from frozen tokens", about)
    page.text(
        f"Heads of {studies['train']} training studies; the step of each is the one that does best on the "
        f"{studies['validation']} of validation. Dice on the grid of the original volume, mean over studies; a pixel's "
        "class is that of the highest logit."
    )
    header = ("head", "features", *names, "mean of classes")
    page.table(header, rows)
    page.heading("Is the encoder better than its controls?")
    lines = [(h, f"encoder - {n}", d, verdict(d)) for h, n, d in compared]
    page.table(("head", "difference of mean Dice, paired", "value", "verdict"), lines)
    cli.print_table(header, rows)
    cli.print_table(("head", "difference", "value", "verdict"), lines)
    differences = [{"head": h, "minus": n, "dice": d.as_dict(), "verdict": verdict(d)} for h, n, d in compared]
    of = {"modality": _MODALITY.value, "mask": _MASK.value, "head_steps": _STEPS.value, "studies": studies}
    subject.save(about | {"segmentation": of | {"results": results, "differences": differences}}, page)


def _difference(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> Interval:
    """Of the mean over classes, on the same replicates."""
    known = np.isfinite(a) & np.isfinite(b)
    count = weights @ known
    total = weights @ np.where(known, a - b, 0.0)
    return summarise(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0).mean(1))


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
