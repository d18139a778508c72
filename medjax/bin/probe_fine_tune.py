"""--fine_tune of `evaluate_probe`: the encoder trained for the labels, scored as the probe is."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from absl import flags
from sklearn.preprocessing import StandardScaler

from medjax.bin import cli
from medjax.bin.evaluation import EncoderSubject, Subject
from medjax.bin.probe_features import Probing, joined
from medjax.errors import UserError
from medjax.evaluation.bootstrap import summarise, verdict
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.page import Page
from medjax.evaluation.probe import ProbeResult, fit_probe, joined_features, scorable, score
from medjax.evaluation.recipes import RECIPES
from medjax.training.fine_tune import FineTuneConfig, FineTuned, fine_tune

_FINE_TUNE = flags.DEFINE_bool(
    "fine_tune", False, "Also train the encoder itself with a linear layer on its embeddings."
)
_EPOCHS = flags.DEFINE_integer("fine_tune_epochs", 10, "Over the training split; the best on validation counts.")
_LR = flags.DEFINE_float("fine_tune_lr", 3e-4, "Peak learning rate of the towers; ten times that for the layer.")
_DECAY = flags.DEFINE_float("fine_tune_layer_decay", 1.0, "Learning rates fall by this factor a block to the input.")
_BATCH = flags.DEFINE_integer("fine_tune_batch", 32, "Examples of an update.")


def check(subject: Subject) -> None:
    """Raises:
    UserError: there is no encoder to train, or a flag is out of range.
    """
    if not _FINE_TUNE.value:
        return
    if not isinstance(subject, EncoderSubject):
        raise UserError("--fine_tune trains an encoder, and stored embeddings are none; pass --workdir or --export")
    if not subject.labels:
        raise UserError(f"data set {subject.data['name']!r} has no labels; leave --fine_tune out")
    if min(_EPOCHS.value, _BATCH.value) < 1 or _LR.value <= 0:
        raise UserError("--fine_tune_epochs, --fine_tune_batch and --fine_tune_lr must be positive")


def add(probing: Probing, page: Page) -> dict[str, Any]:
    """The part of results.json, printed and on the page: all modalities together, against the probe and against the
    same training from random parameters."""
    if not _FINE_TUNE.value:
        return {}
    subject, used, recipe = probing.subject, probing.modalities, RECIPES["newton"]
    probe = fit_probe(joined(probing.tables["trained"], used, recipe), subject.labels, recipe)
    tuned, course = _tune(subject, probing.tables["trained"], used)
    control, _ = _tune(subject.untrained(), probing.tables["untrained"], used)
    gains = {
        "linear probe": summarise(tuned.macro_replicates - probe.macro_replicates),
        "from random parameters": summarise(tuned.macro_replicates - control.macro_replicates),
    }
    print(f"fine-tuned: epoch {course.epoch} of {_EPOCHS.value} is best on validation")
    header = ("features", "fine-tuned", *gains, *(f"fine-tuned above {k}" for k in gains))
    rows = [("all together", tuned.macro, probe.macro, control.macro, *(f"{g}: {verdict(g)}" for g in gains.values()))]
    cli.print_table(header, rows)
    page.heading("Fine-tuned")
    page.text(
        f"The towers were trained with a linear layer on the embeddings of {', '.join(used)} for up to "
        f"{_EPOCHS.value} epochs (AdamW, peak learning rate {_LR.value:g}, cosine); epoch {course.epoch} is best on "
        "validation. Beside it the linear probe, and the same from random parameters."
    )
    page.table(header, rows)
    labels = [(k, i, probe.auroc[k], control.auroc[k]) for k, i in tuned.auroc.items()]
    page.table(("label", "AUROC, fine-tuned", *gains), labels)
    return {
        "fine_tuned": {
            "options": {k: flags.FLAGS[f"fine_tune_{k}"].value for k in ("epochs", "lr", "layer_decay", "batch")},
            "best_epoch": course.epoch,
            "validation_auroc": list(course.validation),
            "training_loss": list(course.loss),
            "fine_tuned": tuned.as_dict(),
            "linear_probe": probe.as_dict(),
            "from_random_parameters": control.as_dict(),
            "gain": {
                k.replace(" ", "_"): {"macro_auroc": g.as_dict(), "verdict": verdict(g)} for k, g in gains.items()
            },
        }
    }


def _tune(
    subject: EncoderSubject, tables: Mapping[str, EmbeddingTable], used: Sequence[str]
) -> tuple[ProbeResult, FineTuned]:
    features = {k: joined_features(t, used) for k, t in tables.items()}
    columns, skipped = scorable(features, subject.labels)
    scaler = StandardScaler().fit(features["train"].x)
    config = FineTuneConfig(
        steps=max(len(features["train"].x) // _BATCH.value, 1),
        epochs=_EPOCHS.value,
        lr=_LR.value,
        layer_decay=_DECAY.value,
    )
    with contextlib.closing(subject.dataset.train(config.seed, 0, _BATCH.value)) as train:
        course = fine_tune(
            subject.encoder,
            used,
            list(columns.values()),
            train,
            lambda: subject.batches("validation"),
            (scaler.mean_, scaler.scale_),
            config,
        )
    found, _ = course.logits(subject.batches("test"))
    return replace(score(found, features["test"], columns), skipped=skipped), course
