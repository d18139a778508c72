"""Probes of frozen embeddings: python -m medjax.bin.evaluate_probe --workdir=RUN [--recipe=newton].

A probe, by default a logistic regression, on the embeddings of each modality and of all but text together, against the
same encoder before training, the raw input, shuffled embeddings, attributes alone and the report; fitted on the
training split, chosen on validation, scored on the test split. On request also with a part of the training examples
(--fractions), for exclusive classes (--exclusive) and for numbers (--targets), against full fine-tuning (--fine_tune)
and against another model (--against).
"""

from collections.abc import Mapping

from absl import flags

from medjax.bin import cli, probe_against, probe_classes, probe_fine_tune, probe_fractions, probe_targets
from medjax.bin.evaluation import load_subject
from medjax.bin.probe_features import READS, Probing, chosen_recipe, joined, raw_inputs
from medjax.bin.probe_report import Probes, fill, gains_of, print_probes
from medjax.errors import UserError
from medjax.evaluation.bootstrap import verdict
from medjax.evaluation.controls import attribute_probe, shuffled
from medjax.evaluation.probe import Features, ProbeResult, fit_probe
from medjax.evaluation.recipes import RECIPES

_RECIPE = flags.DEFINE_enum("recipe", "newton", list(RECIPES), "; ".join(f"{k}: {r.says}" for k, r in RECIPES.items()))
_RAW = flags.DEFINE_bool("raw", True, "Also probe the preprocessed input itself, reduced to its principal components.")
_SECTIONS = (probe_fractions, probe_classes, probe_targets, probe_fine_tune, probe_against)


def main() -> None:
    """Evaluates, prints tables, writes results.json and report.html."""
    name = _RECIPE.value
    subject = load_subject("probe" if name == "newton" else f"probe_{name}")
    if not subject.labels and not probe_targets.asked():
        raise UserError(f"data set {subject.data['name']!r} has no labels to probe for; --targets probes for numbers")
    for section in _SECTIONS:
        section.check(subject)
    probing = Probing.create(subject, chosen_recipe(name))
    probes = _probes(probing) if subject.labels else {}
    if probes and all(p.macro is None for of in probes.values() for p in of.values()):
        raise UserError("no label has both classes in the training and test split")
    controls = _controls(probing) if subject.labels else {}
    about = subject.about(subject.table())
    page = subject.page("Linear probe" if name in ("newton", "lbfgs", "sgd") else f"Probe by {name}", about)
    if probing.modalities == ("text",):
        page.note(READS)
        print(READS)
    results = {**about, "recipe": probing.recipe.as_dict(), **_as_dict(probes, controls)}
    if probes:
        print_probes(probes, controls, probing.recipe)
        fill(page, probes, controls, probing.recipe)
    for section in _SECTIONS:
        results |= section.add(probing, page)
    subject.save(results, page)


def _probes(probing: Probing) -> Probes:
    """`{features: {what they come from: result}}`."""
    subject, recipe, sets = probing.subject, probing.recipe, probing.sets

    def fit(features: Mapping[str, Features]) -> ProbeResult:
        return fit_probe(features, subject.labels, recipe)

    probes = {what: {n: fit(f) for n, f in probing.features(used).items()} for what, used in sets.items()}
    if _RAW.value and subject.dataset:
        for what, features in raw_inputs(subject, sets).items():
            probes[what]["raw input"] = fit(features)
    dealt = {split: shuffled(t, seed) for seed, (split, t) in enumerate(probing.tables["trained"].items())}
    for what, used in sets.items():
        probes[what]["shuffled"] = fit(joined(dealt, used, recipe))
    return probes


def _controls(probing: Probing) -> dict[str, ProbeResult]:
    """What needs no embedding, and what reads the answer; both by the recipe newton."""
    subject, tables, newton, out = probing.subject, probing.tables["trained"], RECIPES["newton"], {}
    if subject.attributes:
        out["attributes"] = attribute_probe(tables, subject.labels, subject.attributes, probing.modalities)
    if "text" in subject.modalities and "text" not in probing.modalities:
        out["text"] = fit_probe(joined(tables, ["text"], newton), subject.labels, newton)
    return out


def _as_dict(probes: Probes, controls: Mapping[str, ProbeResult]) -> dict:
    """Of results.json; without labels nothing but empty parts."""
    gains = {what: gains_of(of) for what, of in probes.items()}
    return {
        "probe": {what: {n.replace(" ", "_"): p.as_dict() for n, p in of.items()} for what, of in probes.items()},
        "gain": {
            what: {c.replace(" ", "_"): {"macro_auroc": i.as_dict(), "verdict": verdict(i)} for c, i in of.items()}
            for what, of in gains.items()
        },
        "controls": {"chance": {"macro_auroc": 0.5}, **{k: p.as_dict() for k, p in controls.items()}},
    }


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
