"""The public archives that build_dataset knows by their layout, each a small function of its flags."""

from absl import flags

from medjax.bin.sources import RATE, UNCERTAIN_LABELS, input_path, source
from medjax.data.sources import CheXpert, CtRate, Mimic, OpenI, Roco, Source, SymileMimic
from medjax.data.sources.chexpert_labels import UNCERTAIN, LabelPolicy
from medjax.errors import UserError

_ONES = flags.DEFINE_list(
    "uncertain_ones", ["Atelectasis", "Edema"], "With --uncertain_labels=mixed: labels that become 1; the rest 0."
)
_BLANK = flags.DEFINE_enum(
    "blank_labels",
    "zeros",
    ["zeros", "ignore"],
    "chexpert, mimic, symile_mimic: what labels become that are not mentioned.",
)
_RULE = flags.DEFINE_enum(
    "mimic_rule",
    "study",
    ["study", "window", "admission"],
    "mimic: radiographs alone, with each ECG some days around them, or with ECG and lab tests of an admission.",
)
_DAYS = flags.DEFINE_float("mimic_days", 60.0, "mimic, --mimic_rule=window: days between radiograph and ECG.")
_NEAREST = flags.DEFINE_bool("mimic_nearest", False, "mimic, --mimic_rule=window: with the nearest ECG alone.")
_FRONTAL = flags.DEFINE_bool("mimic_frontal", True, "mimic: PA and AP views only.")
_LABELLER = flags.DEFINE_enum("mimic_labeller", "chexpert", ["chexpert", "negbio"], "mimic: whose labels.")
_REPORTS = flags.DEFINE_bool("mimic_reports", True, "mimic: with the texts.")
_RECONSTRUCTIONS = flags.DEFINE_enum(
    "reconstructions", "examples", ["examples", "items"], "ct_rate: what the reconstructions of one scan become."
)
_LICENCES = flags.DEFINE_list("figure_licences", [], 'roco: licences to take, such as "CC BY,CC0"; default: all.')
_FIGURES = flags.DEFINE_enum("figures", "radiology", ["radiology", "non-radiology"], "roco: which figures.")


def _policy() -> LabelPolicy:
    if UNCERTAIN_LABELS.value == "refuse":
        raise UserError(f"the archive has uncertain labels; choose --uncertain_labels={'|'.join(UNCERTAIN)}")
    return LabelPolicy(UNCERTAIN_LABELS.value, _BLANK.value, tuple(_ONES.value))


@source("chexpert")
def _chexpert() -> Source:
    return CheXpert(input_path("chexpert"), _policy())


@source("mimic")
def _mimic() -> Source:
    return Mimic(
        input_path("mimic"),
        rule=_RULE.value,
        days=_DAYS.value,
        nearest=_NEAREST.value,
        frontal=_FRONTAL.value,
        labeller=_LABELLER.value,
        rate=RATE.value,
        reports=_REPORTS.value,
        policy=_policy(),
    )


@source("symile_mimic")
def _symile_mimic() -> Source:
    return SymileMimic(input_path("symile_mimic"), _policy())


@source("openi")
def _openi() -> Source:
    return OpenI(input_path("openi"))


@source("ct_rate")
def _ct_rate() -> Source:
    return CtRate(input_path("ct_rate"), _RECONSTRUCTIONS.value)


@source("roco")
def _roco() -> Source:
    return Roco(input_path("roco"), tuple(_LICENCES.value), _FIGURES.value)
