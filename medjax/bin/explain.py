"""Where an encoder sees what it says: python -m medjax.bin.explain --workdir=RUN --findings=consolidation --examples=3.

Of every finding the studies that have it are explained in each modality that shows it, and in the report: which pixels,
which moments and leads, which words and lab values bring the embedding nearer to the finding's prompts. Where the data
set marks findings with boxes, the maps are scored against them, beside a random map, a blot in the middle, the encoder
before training and the prompts of another finding. Maps are written in the geometry of the inputs as they came.

Explanations (--method): similarity of each token, gradient_attention, rollout, grad_cam, integrated_gradients, m2ib. Of
those asked for an encoder gets the ones that fit it; if none does, integrated gradients.
"""

from collections.abc import Mapping, Sequence

from absl import flags

from medjax.bin import cli
from medjax.bin.evaluation import EncoderSubject, load_subject
from medjax.bin.explain_grounding import Grounding, Scene, Scores, ground
from medjax.bin.explain_report import console, fill, results_of, show
from medjax.bin.explain_studies import FINDING, POSITIVE, Asked, Studies, explainer_of
from medjax.data.manifest import Finding
from medjax.data.sources.table import read_prompts
from medjax.errors import UserError, check_choice
from medjax.evaluation.explain.explainer import EXPLANATIONS, Explainer

_FINDINGS = flags.DEFINE_list("findings", [], "Findings to explain; default: all that are not joint.")
_EXAMPLES = flags.DEFINE_integer("examples", 3, "Studies of each finding to show; 0 for none.")
_METHOD = flags.DEFINE_list(
    "method", ["similarity", "gradient_attention", "grad_cam"], f"Explanations, of {', '.join(EXPLANATIONS)}."
)
_AGAINST = flags.DEFINE_string(
    "against",
    FINDING,
    "What embeddings are compared with: finding (positive prompts less negative ones), positive (those alone), or a "
    "modality, the study's own embedding of it.",
)
_PROMPTS = flags.DEFINE_string(
    "prompts", "", 'JSON {label: {"positive": [...], "negative": [...]}}; default: the data set\'s.'
)
_SMOOTH = flags.DEFINE_float("smooth", 0.0, "Spread, in patches, of a Gaussian over similarity maps; BioViL: 1.5.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the noise of m2ib.")
_GROUND = flags.DEFINE_bool("grounding", True, "Score the maps against the boxes that the data set has.")
_SENSITIVE = flags.DEFINE_bool("show_sensitive", False, "Show studies of a data set that is marked sensitive, too.")
_AT_ONCE = 32  # studies explained at a time: gradients and copies of noise take more room than embedding


def main() -> None:
    """Explains, scores, prints a table, writes maps, pictures, results.json and report.html."""
    _check_flags()
    subject = load_subject("explain")
    if not isinstance(subject, EncoderSubject):
        raise UserError("explain takes an encoder: pass --workdir or --export")
    if subject.scorer() is None or len(subject.modalities) < 2:
        raise UserError("this encoder compares no modalities with each other, so there is no score to explain")
    findings = _findings(subject)
    if _AGAINST.value not in (FINDING, POSITIVE):
        check_choice("--against", _AGAINST.value, (FINDING, POSITIVE, *subject.modalities))
    explainer = explainer_of(subject.encoder, _SMOOTH.value, _SEED.value, min(_AT_ONCE, flags.FLAGS.batch_size))
    asked, studies = _asked(subject, findings, explainer), Studies(subject, subject.split)
    scores = _ground(asked, studies, findings) if _GROUND.value else {}
    about = subject.about(studies.table)
    shown = show(
        asked,
        studies,
        {k: _modalities(asked, f) for k, f in findings.items()},
        _METHOD.value,
        *(_EXAMPLES.value, _SENSITIVE.value),
    )
    console(scores)
    page = subject.page("Explanations", about)
    fill(page, asked, findings, scores, shown, _EXAMPLES.value)
    subject.save({**about, **results_of(asked, findings, _METHOD.value, scores, shown)}, page)


def _check_flags() -> None:
    for method in _METHOD.value:
        check_choice("explanation in --method", method, EXPLANATIONS)
    if not _METHOD.value:
        raise UserError(f"--method is empty; valid: {', '.join(EXPLANATIONS)}")
    if _EXAMPLES.value < 0 or _SMOOTH.value < 0:
        raise UserError(f"--examples={_EXAMPLES.value} and --smooth={_SMOOTH.value} must not be negative")


def _findings(subject: EncoderSubject) -> dict[str, Finding]:
    every = read_prompts(_PROMPTS.value, subject.labels) if _PROMPTS.value else subject.findings
    if not every:
        raise UserError(f"data set {subject.data['name']!r} has no prompts; pass --prompts=FILE.json")
    if _AGAINST.value in (FINDING, POSITIVE) and "text" not in subject.modalities:
        raise UserError("this encoder reads no text and cannot be prompted; compare with --against=MODALITY")
    for name in _FINDINGS.value:
        check_choice("finding in --findings", name, every)
    names = _FINDINGS.value or [k for k, f in every.items() if not f.joint]
    return {k: every[k] for k in names}


def _asked(subject: EncoderSubject, findings: Mapping[str, Finding], explainer: Explainer) -> Asked:
    prompts = {}
    if _AGAINST.value in (FINDING, POSITIVE):
        prompts = subject.prompts({**subject.findings, **findings})  # another finding's are a control
    return Asked(subject, explainer, prompts, _AGAINST.value)


def _modalities(asked: Asked, finding: Finding) -> list[str]:
    """Those that show a finding, and the report."""
    known = asked.subject.modalities
    shown = [m for m in known if m in finding.seen_in] or list(known)
    return [m for m in dict.fromkeys([*shown, "text"]) if m in known and m != asked.against]


def _ground(asked: Asked, studies: Studies, findings: Mapping[str, Finding]) -> Scores:
    """The scores of the findings that are marked in pictures."""
    subject = asked.subject
    pictures = [m for m in subject.modalities if subject.dataset.manifest.modality(m).kind == "image"]
    pictures = [m for m in pictures if m != asked.against][:1]
    marked = [k for k in findings if pictures and len(studies.marked(k, pictures[0]))]
    if not marked:
        return {}
    before = subject.untrained()
    untrained = _asked(before, findings, asked.explainer.of((before.encoder.params, before.encoder.state)))
    validation = None
    if studies.split != "validation" and "validation" in subject.dataset.manifest.splits:
        validation = Studies(subject, "validation")
    methods = asked.explainer.fitting(pictures[0], _METHOD.value)
    out = {}
    for finding in marked:
        scenes = [s and Scene.of(s, finding, pictures[0]) for s in (studies, validation)]
        wrong = _another(finding, marked, list(asked.prompts) or list(findings))
        out[finding] = ground(Grounding(finding, wrong, pictures[0], *scenes), asked, untrained, methods)
        print(f"{finding}: {len(scenes[0].at)} pictures with boxes scored", flush=True)
    return out


def _another(finding: str, marked: Sequence[str], every: Sequence[str]) -> str:
    """The next finding that is marked, or else the next of all: what a wrong prompt asks for."""
    among = marked if len(marked) > 1 else every
    return among[(list(among).index(finding) + 1) % len(among)]


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
