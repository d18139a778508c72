"""What of a DICOM header may enter a record: an allow-list of codes and numbers, each within its known values.

Whatever is not named here is left out: names, dates, identifiers and UIDs, private elements, and all free text. A code
is kept only where it is one that the standard defines, a number only within its physical range, because any field of a
real header may hold a name.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medjax.data.privacy.masking import BURNED_IN, FACE
from medjax.data.readers.dicom_file import code, codes, element, guarded, load, macro, numbers
from medjax.data.readers.dicom_pixels import PHOTOMETRIC
from medjax.errors import UserError

MAX_AGE = 90.0  # ages above are one class under HIPAA's Safe Harbor rule (45 CFR 164.514(b)(2)(i)(C))


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# PS3.16 annex L, short of veterinary and rare ones.
_HEAD_PARTS = _words(
    "BRAIN CSPINE EAR EYE FACE HEAD HEADNECK IAC JAW MANDIBLE MAXILLA NECK NOSE ORBIT PITUITARY SINUS SKULL TMJ "
    "WHOLEBODY ZYGOMA"
)
_BODY_PARTS = _HEAD_PARTS | _words(
    "ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA ARM AXILLA BACK BLADDER BREAST BRONCHUS CALCANEUS CALF CAROTID CHEST "
    "CHESTABDOMEN CHESTABDPELVIS CLAVICLE COCCYX COLON CORONARYARTERY CTSPINE DUODENUM ELBOW ESOPHAGUS EXTREMITY FEMUR "
    "FINGER FOOT FOREARM GALLBLADDER HAND HEART HIP HUMERUS ILEUM KIDNEY KNEE LEG LIVER LSPINE LSSPINE LUNG "
    "MEDIASTINUM OVARY PANCREAS PATELLA PELVIS PROSTATE RIB SCAPULA SHOULDER SIJOINT SPINE SPLEEN SSPINE STERNUM "
    "STOMACH THIGH THORAX THUMB THYROID TIBIA TLSPINE TOE TSPINE UTERUS WRIST"
)
_CODES = {
    "modality": ("Modality", _words("CR CT DX ES GM IO IVUS MG MR NM OCT OP OPT OT PT PX RF RG SC SM US XA XC")),
    "body_part": ("BodyPartExamined", _BODY_PARTS),
    "view": (
        "ViewPosition",
        _words("AP PA LL RL LAT LATERAL LLD RLD RLO LLO LPO RPO LAO RAO CC MLO ML LM XCCL XCCM FB SIO ISO LMO AT"),
    ),
    "sex": ("PatientSex", _words("F M O")),
    "patient_position": ("PatientPosition", _words("HFS HFP HFDL HFDR FFS FFP FFDL FFDR SITTING")),
    "photometric": ("PhotometricInterpretation", frozenset(PHOTOMETRIC)),
}
# name -> keyword, how many, least, greatest
_NUMBERS = {
    "rows": ("Rows", 1, 1, 65535),
    "columns": ("Columns", 1, 1, 65535),
    "frames": ("NumberOfFrames", 1, 1, 65535),
    "bits": ("BitsStored", 1, 1, 64),
    "spacing_mm": ("PixelSpacing", 2, 1e-4, 100),
    "imager_spacing_mm": ("ImagerPixelSpacing", 2, 1e-4, 100),
    "slice_thickness_mm": ("SliceThickness", 1, 1e-3, 500),
    "peak_kilovoltage": ("KVP", 1, 1, 1000),
    "field_strength_tesla": ("MagneticFieldStrength", 1, 0.01, 30),
}
_AGE_UNITS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_VOLUME_MODALITIES = _words("CT MR PT")
_WRITTEN_ON = _words("US ES SC OT")
_PROJECTIONS = _words("CR DX MG PX IO")  # where DERIVED only says that raw values were made ready to be shown
# Manufacturers by the first letters of a word.
_VENDORS = _words(
    "AGFA BARCO CANON CARESTREAM ESAOTE FUJI GENERAL HITACHI HOLOGIC KODAK KONICA MINDRAY OLYMPUS PHILIPS SAMSUNG "
    "SHIMADZU SIEMENS TOSHIBA UNITED VAREX VIEWORKS"
)
_SHORT_VENDORS = {"GE": "ge", "GENERAL": "ge", "UIH": "united"}
_HEAD_WORDS = _words("HEAD BRAIN NEURO SKULL CRANI FACIAL FACE ORBIT SINUS NECK KOPF SCHAEDEL SCHÄDEL GEHIRN CEREB")
_HEAD_EXTENT = 320.0  # mm; pictures of a trunk are wider


def read_tags(path: str | Path) -> dict[str, Any]:
    """The safe part of a header: strings, floats and lists of floats, only those that the file has.

    `modality`, `body_part`, `view`, `laterality` (L, R, B), `sex` (F, M, O), `age_years` (whole years at most 90,
    younger than 2 with a fraction), `manufacturer` (one of a list of vendors, else "other"), `contrast` (bool),
    `patient_position`, `photometric`, `rows`, `columns`, `frames`, `bits`, `spacing_mm` and `imager_spacing_mm`
    (between rows, between columns), `slice_thickness_mm`, `peak_kilovoltage`, `field_strength_tesla`, and `flags`, the
    list of `read_flags`.

    Raises:
      UserError: the file is missing, or no DICOM file.
    """
    path = Path(path)
    with guarded(path):
        dataset = load(path, pixels=False)
        out: dict[str, Any] = {}
        for name, (keyword, valid) in _CODES.items():
            if (found := _try(code, dataset, keyword)) in valid:
                out[name] = found
        for name, (keyword, count, low, high) in _NUMBERS.items():
            source = _try(macro, dataset, "PixelMeasuresSequence", 0) or dataset
            found = _try(numbers, source, keyword, count) or _try(numbers, dataset, keyword, count)
            if found and all(low <= x <= high for x in found):
                out[name] = list(found) if count > 1 else found[0]
        out |= _derived(dataset)
        return out | {"flags": list(flags_of_header(dataset))}


def read_flags(path: str | Path) -> tuple[str, ...]:
    """What a picture may show of somebody, for `Example.flags`: "burned-in text", "face".

    Burned-in text: the file says so, or is a secondary capture, an ultrasound or endoscopy picture, or of the type
    SECONDARY or (but for radiographs) DERIVED without saying that there is none. Face: CT, MR or PET of the head or
    neck; where the body part is not given, where a description names the head, or none does and the picture is at
    most 320 mm wide.

    Raises:
      UserError: the file is missing, or no DICOM file.
    """
    path = Path(path)
    with guarded(path):
        return flags_of_header(load(path, pixels=False))


def _try(read: Callable[..., Any], dataset: Any, *arguments: Any) -> Any:
    """A damaged element is as good as a missing one: the pixels do not depend on it."""
    try:
        return read(dataset, *arguments)
    except UserError:
        return None


def _derived(dataset: Any) -> dict[str, Any]:
    out: dict[str, Any] = {}
    laterality = _try(code, dataset, "ImageLaterality") or _try(code, dataset, "Laterality")
    if laterality in ("L", "R", "B"):
        out["laterality"] = laterality
    if (age := _age(dataset)) is not None:
        out["age_years"] = age
    maker = str(_try(element, dataset, "Manufacturer") or "").upper().replace(",", " ").split()
    if maker:
        known = (_SHORT_VENDORS.get(w) or next((v for v in _VENDORS if w.startswith(v)), "") for w in maker)
        out["manufacturer"] = next(filter(None, known), "other").lower()
    if "ContrastBolusAgent" in dataset:
        agent = str(_try(element, dataset, "ContrastBolusAgent") or "").strip().upper()
        out["contrast"] = agent not in ("", "NO", "NONE", "WITHOUT")
    return out


def _age(dataset: Any) -> float | None:
    """Years from PatientAge, else from the dates of birth and study, of which no more is kept."""
    text = str(_try(element, dataset, "PatientAge") or "").strip().upper()
    if text[:3] != "000" and len(text) == 4 and text[:3].isascii() and text[:3].isdigit() and text[3] in _AGE_UNITS:
        age = int(text[:3]) * _AGE_UNITS[text[3]]
    else:
        birth, study = (str(_try(element, dataset, k) or "") for k in ("PatientBirthDate", "StudyDate"))
        if not all(len(d) == 8 and d.isascii() and d.isdigit() for d in (birth, study)):
            return None
        born, seen = ((int(d[:4]), int(d[4:])) for d in (birth, study))
        age = float(seen[0] - born[0] - (seen[1] < born[1]))
    if not 0 <= age <= 150:
        return None
    return min(float(math.floor(age)) if age >= 2 else round(age, 2), MAX_AGE)


def flags_of_header(dataset: Any) -> tuple[str, ...]:
    """As `read_flags`, of a pydicom data set."""
    modality = _try(code, dataset, "Modality")
    return (BURNED_IN,) * _may_hold_text(dataset, modality) + (FACE,) * _may_show_face(dataset, modality)


def _may_hold_text(dataset: Any, modality: str | None) -> bool:
    said = _try(code, dataset, "BurnedInAnnotation")
    captured = str(_try(element, dataset, "SOPClassUID") or "").startswith(_SECONDARY_CAPTURE)
    kinds = set(_try(codes, dataset, "ImageType") or ())
    derived = "SECONDARY" in kinds or ("DERIVED" in kinds and modality not in _PROJECTIONS)
    return said == "YES" or captured or modality in _WRITTEN_ON or (derived and said != "NO")


def _may_show_face(dataset: Any, modality: str | None) -> bool:
    if modality not in _VOLUME_MODALITIES:
        return False
    if (part := _try(code, dataset, "BodyPartExamined")) in _BODY_PARTS:
        return part in _HEAD_PARTS
    texts = (str(_try(element, dataset, k) or "") for k in ("StudyDescription", "SeriesDescription", "ProtocolName"))
    if any(word in text.upper() for text in texts for word in _HEAD_WORDS):
        return True
    spacing = _try(numbers, dataset, "PixelSpacing", 2)
    columns = _try(numbers, dataset, "Columns", 1)
    return not (spacing and columns) or spacing[1] * columns[0] <= _HEAD_EXTENT
