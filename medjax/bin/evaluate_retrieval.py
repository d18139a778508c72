"""Retrieval: python -m medjax.bin.evaluate_retrieval --workdir=RUN.

Every ordered pair of modalities; each modality by every set of the others together, under the rule of --joint, in the
whole gallery and among ten candidates; studies by their labels, within a modality and between them; and, where the
data set has findings that only several modalities show together, the choice between the statements of their presence
and absence. Against chance, the encoder before training, and embeddings dealt out anew; --against=PLACE compares with
another model, paired over patients.
"""

from collections.abc import Mapping
from pathlib import Path

from absl import flags

from medjax.bin import cli
from medjax.bin.evaluation import Subject, load_subject
from medjax.bin.places import open_place
from medjax.bin.retrieval_against import Differences, against_table, compare, their_table
from medjax.bin.retrieval_measure import Retrieved, measure
from medjax.bin.retrieval_page import fill, label_table, pair_table, spoken, statement, subset_table
from medjax.errors import UserError
from medjax.evaluation import faiss_index, label_retrieval, retrieval
from medjax.evaluation.bootstrap import Interval, patient_weights, summarise
from medjax.evaluation.controls import shuffled
from medjax.evaluation.joint import RULES, Scorer
from medjax.evaluation.metrics import weighted_mean

_INDEXED = 10  # nearest candidates that an index must find

_EXAMPLES = flags.DEFINE_integer("examples", 3, "Queries whose nearest neighbours are shown in the report; 0 for none.")
_JOINT = flags.DEFINE_enum(
    "joint",
    "trained",
    ["trained", *RULES],
    "How several modalities ask together: as the objectives were trained, by the multilinear inner product, by the "
    "volume that they span with the candidate, or by the mean of inner products.",
)
_SAME_PATIENT = flags.DEFINE_enum(
    "same_patient", "exclude", ["exclude", "keep"], "By label: whether a study may find others of its patient."
)
_SEED = flags.DEFINE_integer("candidate_seed", 0, "Which of the other studies stand among the ten candidates.")
_AGAINST = flags.DEFINE_string(
    "against", "", "Another run, export or embeddings, of the same examples, to compare with, paired over patients."
)
_FAISS = flags.DEFINE_string(
    "faiss", "", "An index of FAISS, such as HNSW32: also say how much of the exact result it finds."
)


def main() -> None:
    """Evaluates, prints tables, writes results.json and report.html."""
    subject = load_subject("retrieval")
    table, scorer = subject.table(), _scorer(subject)
    untrained = subject.untrained()
    result = _measure(subject, scorer)
    if not result.pairwise and not result.labels:
        raise UserError(_nothing(subject, scorer))
    before = _measure(untrained, _scorer(untrained)) if untrained else None
    torn = measure(subject, shuffled(table), scorer, _SAME_PATIENT.value == "keep", _SEED.value)
    about = subject.about(table)
    for header, rows in (make(result, before, torn) for make in (pair_table, subset_table, label_table)):
        if rows:
            cli.print_table(header, rows)
            print()
    for s in result.statements.values():
        print(statement(s, before))
    if result.unasked:
        print(f"joint findings are not asked for: {result.unasked}")
    differences = _against(subject, result) if _AGAINST.value else None
    if differences is not None:
        print(f"\nagainst {_AGAINST.value}, paired over patients:")
        cli.print_table(*against_table(differences, spoken))
    indexed = _indexed(result) if _FAISS.value else {}
    if indexed:
        print(f"\nindex {_FAISS.value} of FAISS:")
        cli.print_table(*_index_table(indexed))
    texts = retrieval.duplicated_texts(table)
    if texts:
        print("{duplicated} of {distinct} texts belong to several studies ({studies_that_share_one})".format(**texts))
    policies = _policies(texts, scorer)
    page = subject.page("Retrieval", about)
    fill(page, subject, result, before, torn, policies, _EXAMPLES.value)
    if differences is not None:
        page.heading(f"Against {Path(_AGAINST.value).name}")
        page.text("Both are scored on the same studies, and each replicate draws the same patients for both.")
        page.table(*against_table(differences, spoken))
    if indexed:
        page.heading(f"Index {_FAISS.value} of FAISS")
        page.text("The scores above are of exact search. Who serves the gallery by this index finds so much of it.")
        page.table(*_index_table(indexed))
    controls = {"untrained": before.as_dict() if before else None, "shuffled": torn.as_dict()}
    results = {**about, **policies, **result.as_dict(), "controls": controls, **_gains(result, before)}
    if differences is not None:
        found = {metric: {k: d.as_dict() for k, d in of.items()} for metric, of in differences.items()}
        results["against"] = {"place": Path(_AGAINST.value).name, **found}
    if indexed:
        results["faiss"] = {"index": _FAISS.value, **{k: v.as_dict() for k, v in indexed.items()}}
    subject.save(results, page)


def _measure(subject: Subject, scorer: Scorer | None) -> Retrieved:
    return measure(subject, subject.table(), scorer, _SAME_PATIENT.value == "keep", _SEED.value)


def _against(subject: Subject, result: Retrieved) -> Differences:
    other = open_place(_AGAINST.value, subject)
    table, keep = their_table(subject, other, _AGAINST.value), _SAME_PATIENT.value == "keep"
    return compare(result, measure(other, table, _scorer(other), keep, _SEED.value))


def _indexed(result: Retrieved) -> dict[str, Interval]:
    """Of each direction the share of the exact ten nearest that the index finds."""
    out = {}
    for name, r in result.pairwise.items():
        share = faiss_index.found_share(*r.queries.values(), r.gallery, _INDEXED, _FAISS.value)
        out[name] = summarise(weighted_mean(share, patient_weights(r.patients)))
    return out


def _index_table(indexed: Mapping[str, Interval]) -> tuple:
    return ("direction", f"share of the exact {_INDEXED} nearest"), [(spoken(k), v) for k, v in indexed.items()]


def _scorer(subject: Subject) -> Scorer | None:
    """None where the embeddings of different modalities cannot be compared."""
    widths = {x.shape[1] for x in subject.table().embeddings.values()}
    if len(subject.modalities) < 2 or len(widths) > 1:
        return None
    return subject.scorer() if _JOINT.value == "trained" else RULES[_JOINT.value]


def _nothing(subject: Subject, scorer: Scorer | None) -> str:
    """Why there is nothing to score."""
    if scorer is not None:
        return f"no two studies of the {subject.split} split have two modalities in common, or share a label"
    why = "this encoder compares no modalities with each other, and no two studies share a label; use evaluate_probe"
    return why + (", or --joint=mean" if len(subject.modalities) > 1 else "")


def _policies(texts: dict[str, int] | None, scorer: Scorer | None) -> dict:
    # Embeddings that do not say how they were trained are compared by the mean, and the results say so.
    return {
        "rules": {
            "joint": "mean" if scorer is RULES["mean"] else _JOINT.value,
            "ties": retrieval.TIES,
            "ties_by_label": label_retrieval.TIES,
            "relevant_by_label": label_retrieval.SHARED,
            "same_patient_by_label": _SAME_PATIENT.value,
            "candidate_seed": _SEED.value,
        },
        "texts": texts,
    }


def _gains(result: Retrieved, before: Retrieved | None) -> dict:
    """Paired differences from the encoder before training."""
    if before is None:
        return {"recall@10_gain_over_untrained": None, "label_map_gain_over_untrained": None}

    def gain(now, then) -> dict:
        difference: Interval = summarise(now - then)
        return difference.as_dict()

    recall = {
        k: gain(r.recall_replicates[10], before.pairwise[k].recall_replicates[10]) for k, r in result.pairwise.items()
    }
    by_label = {
        k: gain(r.shared.replicates["map"], before.labels[k].shared.replicates["map"]) for k, r in result.labels.items()
    }
    return {"recall@10_gain_over_untrained": recall, "label_map_gain_over_untrained": by_label}


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
