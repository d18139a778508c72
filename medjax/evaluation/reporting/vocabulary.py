"""What the numbers in results mean, in words for readers who make no models."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """title: its name. says: how to read it. chance: its value by chance, where that is the same for all data. better:
    1 where more is better, -1 where less is, 0 where neither is. headline: whether it opens a section."""

    title: str
    says: str = ""
    chance: float | None = None
    better: int = 0
    headline: bool = False


_AUROC = (
    "AUROC is how often a study with the finding scores above one without it: 1 is always, 0.5 is what guessing gives."
)
_RECALL = "recall@{0} is how often the right partner is among the first {0} that the model proposes."
_ACCURACY = "Accuracy is the share of right answers."
METRICS = {
    "auroc": Metric("AUROC", _AUROC, 0.5, 1, True),
    "macro_auroc": Metric("mean AUROC", _AUROC, 0.5, 1, True),
    "auprc": Metric(
        "AUPRC", "AUPRC is the precision averaged over thresholds; by chance it is the prevalence.", None, 1
    ),
    "macro_auprc": Metric("mean AUPRC", "", None, 1),
    "recall@1": Metric("recall@1", _RECALL.format(1), None, 1),
    "recall@5": Metric("recall@5", _RECALL.format(5), None, 1),
    "recall@10": Metric("recall@10", _RECALL.format(10), None, 1, True),
    "median_rank": Metric("median rank", "The place of the right partner; 1 is best.", None, -1),
    "accuracy": Metric("accuracy", _ACCURACY, None, 1, True),
    "balanced_accuracy": Metric("balanced accuracy", "The mean share of right answers over classes.", None, 1, True),
    "sensitivity": Metric("sensitivity", "The share of studies with the finding that are called so.", None, 1),
    "specificity": Metric("specificity", "The share of studies without the finding that are called so.", None, 1),
    "ppv": Metric("PPV", "The share of positive calls that are right, at the prevalence of this data.", None, 1),
    "npv": Metric("NPV", "The share of negative calls that are right, at the prevalence of this data.", None, 1),
    "f1": Metric("F1", "", None, 1),
    "macro_f1": Metric("mean F1", "", None, 1),
    "ece": Metric(
        "calibration error", "How far probabilities are from observed shares, on average; 0 is best.", None, -1
    ),
    "brier": Metric("Brier score", "The mean squared error of the probabilities; 0 is best.", None, -1),
    "map": Metric("mean average precision", "How early studies with the same label come; 1 is best.", None, 1, True),
    "r_precision": Metric("R-precision", "", None, 1),
    "r2": Metric("R²", "The share of the variation that is predicted; 0 is what the mean alone gives.", 0.0, 1, True),
    "mae": Metric("mean absolute error", "In the unit of the number itself; 0 is best.", None, -1, True),
    "dice": Metric("Dice", "Dice is the overlap with what was drawn by hand: 0 is none, 1 is complete.", None, 1, True),
    "pointing": Metric(
        "pointing game", "How often the strongest point of the map lies in the region that was marked.", None, 1, True
    ),
    "pixel_auroc": Metric(
        "pixel AUROC", "How often a point inside the marked region is warmer than one outside.", 0.5, 1, True
    ),
    "mean_iou": Metric("mean IoU", "", None, 1),
    "iou": Metric("IoU", "", None, 1),
    "hd95_mm": Metric(
        "95 % Hausdorff distance", "How far outlines lie apart, in mm, but for the farthest 5 %.", None, -1
    ),
    "ssim": Metric("SSIM", "Structural similarity: 1 is an equal picture.", None, 1, True),
    "psnr": Metric("PSNR", "How far the picture stands above its errors, in dB; more is better.", None, 1),
    "cosine": Metric("cosine", "", None, 1),
    "quadratic_kappa": Metric(
        "quadratic kappa", "Agreement beyond chance, where far-off grades count more: 1 is complete.", 0.0, 1, True
    ),
    "within_one": Metric("right or the next grade", "", None, 1),
    "mean_absolute_error": Metric("mean absolute error", "In grades; 0 is best.", None, -1),
    "kendall_tau_b": Metric("Kendall's tau-b", "", 0.0, 1),
    "spearman": Metric("Spearman's rho", "", 0.0, 1),
    "contrast_to_noise": Metric("contrast to noise", "", None, 1),
    "separability": Metric("separability", "How well a line tells two modalities' embeddings apart.", 0.5),
    "alignment": Metric(
        "alignment", "Mean squared distance of partners in the embedding space; 0 is identical.", None, -1
    ),
    "pair_cosine": Metric("cosine of partners", "", None, 1),
    "contrastive_gap": Metric(
        "cosine of partners less that of strangers", "Above 0: partners lie closer than strangers.", 0.0, 1, True
    ),
    "gap": Metric("largest gap between groups", "The best group's score less the worst's; never below 0.", None, -1),
    "error": Metric("error", "", None, -1),
    "clean_error": Metric("error, intact", "", None, -1),
    "drop": Metric("drop", "What the score loses when the input is made worse.", 0.0, -1),
}


@dataclass(frozen=True)
class Section:
    """A part of results.json. title: its heading. asks: the question. detail: whether it waits to be opened."""

    title: str
    asks: str = ""
    detail: bool = False


SECTIONS = {
    "zero_shot": Section(
        "Findings from words alone",
        "Does the model tell studies with a finding from those without, given nothing but words for the finding?",
    ),
    "classes": Section("Classes that exclude each other", "Which of several classes does the model choose?"),
    "retrieval": Section(
        "Finding the partner",
        "Given one examination, does the model find the report or examination that belongs to it?",
    ),
    "joint_retrieval": Section(
        "Finding the partner from several examinations", "The same, when several examinations ask together."
    ),
    "joint_subsets": Section("Every set of modalities that asks", "", True),
    "label_retrieval": Section("Finding studies with the same labels", "", True),
    "joint_findings": Section(
        "Findings that need several examinations",
        "Does the model choose the right one of two statements that only several examinations together decide?",
    ),
    "probe": Section(
        "Findings from frozen features",
        "How well can findings be read from the model's features by a small classifier that was fitted to labels?",
    ),
    "fractions": Section("With a part of the labels", "", True),
    "regression": Section("Numbers from frozen features", "How well can measured numbers be read from the features?"),
    "exclusive": Section("Classes from frozen features", "How well can exclusive classes be read from the features?"),
    "subsets": Section("Which modalities help", "How much does each examination add to the others?"),
    "corruptions": Section("Worse input", "What remains of the scores when the input is disturbed?"),
    "missing": Section("Missing modalities", "What remains of the scores when an examination is missing?"),
    "segmentation": Section("Outlining", "How well can organs be outlined from the model's frozen features?"),
    "grounding": Section("Where the model looks", "Do the model's heat maps point at what was marked by hand?"),
    "predictions": Section("Scores of predictions", "How well do these predictions tell who has a label?"),
    "multiclass": Section("Classes that were predicted", "How often is the class that was predicted the right one?"),
    "ordinal": Section("Grades that were predicted", "How near are predicted grades to the true ones?"),
    "reports": Section(
        "Reports that were generated", "How like are generated reports to the real ones of the same study?"
    ),
    "images": Section("Pictures that were generated", "How like are generated pictures to the real ones?"),
    "mean_of_data_sets": Section("Mean over data sets"),
    "modalities": Section("How embeddings spread", "", True),
    "pairs": Section(
        "How modalities lie to each other", "Do examinations of one study lie close in the model's space?"
    ),
    "gap_shift": Section("Moved along the gap", "", True),
    "operating_points": Section("At thresholds that validation chose", "", True),
    "calibration": Section("Scores as probabilities", "", True),
    "subgroups": Section("Subgroups", "", True),
}
# Not what a score must beat, but what it might reach; everything else under `controls` is to be beaten.
MARKS = ("text_only", "text", "linear_probe", "real_report")
CONTROLS = {
    "chance": ("chance", "what guessing gives"),
    "untrained": ("untrained", "the same model before training"),
    "untrained encoder": ("untrained", "the same model before training"),
    "shuffled": ("shuffled", "the model's outputs dealt out anew among the studies"),
    "attributes": ("demographics", "age, sex, device and the like alone, without the examination"),
    "raw_input": ("raw input", "the examination's own numbers, without a model"),
    "intensities": ("raw input", "the examination's own numbers, without a model"),
    "most frequent": ("most frequent", "the most frequent answer, without looking"),
    "random": ("random map", "a map of noise"),
    "centre": ("centre", "a map that always points at the middle"),
    "wrong prompt": ("wrong words", "the map for another finding's words"),
    "by_chance": ("chance", "what guessing gives"),
    "text_only": ("text only", "the study's own report, which says what was found"),
    "text": ("text only", "the study's own report, which says what was found"),
    "real_report": ("real report", "the same, asked of the report that a radiologist wrote"),
    "random pixel": ("random pixel", "any point of the picture"),
    "middle of the picture": ("centre", "a map that always points at the middle"),
    "linear_probe": ("with labels", "a classifier fitted to the labels of other studies"),
}


def section(name: str) -> Section:
    """Of a key of results.json, known or not."""
    return SECTIONS.get(name) or Section(spoken(name).capitalize())


def order(names: Iterable[str]) -> int:
    """The place of results with these keys among others: that of the section that comes first."""
    known = list(SECTIONS)
    return min((known.index(k) for k in names if k in SECTIONS), default=len(known))


def control(name: str) -> tuple[str, str]:
    """(name, what it is) of a control, known or not."""
    return CONTROLS.get(name) or (spoken(name), "as the results name it")


def ranked(names: Iterable[str]) -> list[str]:
    """Controls, each once, in the order of the page: chance first, marks to reach behind those to be beaten."""
    known = list(CONTROLS)
    place = {k: (k in MARKS, known.index(k) if k in CONTROLS else len(known)) for k in names}
    return sorted(place, key=place.get)


def spoken(name: str) -> str:
    """A key in words."""
    return name.replace("_to_", " to ").replace("+", " + ").replace("_", " ")
