"""Names of ECG leads as files write them, and the limb leads that two of them determine."""

from collections.abc import Mapping

import numpy as np

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
_PREFIXES = ("MDC_ECG_LEAD_", "MDC_ECG_", "ECG", "EKG", "LEAD")
_ALIASES = {"DI": "I", "DII": "II", "DIII": "III", "D1": "I", "D2": "II", "D3": "III"}

# Einthoven's law and Goldberger's definitions: the shares of I and II in each of the other limb leads.
FROM_I_AND_II = {"III": (-1.0, 1.0), "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}


def canonical(name: str) -> str:
    """The name of a lead as `LEADS` writes it.

    Case, space around it and the prefixes of SCP-ECG, HL7 aECG, DICOM and EDF+ ("MDC_ECG_LEAD_V1", "ECG V1",
    "Lead V1") do not count; DI, DII, DIII and D1 to D3 are I, II, III. Other names come back in upper case.
    """
    upper = " ".join(name.split()).upper()
    for prefix in _PREFIXES:
        rest = upper.removeprefix(prefix).strip(" _-:")
        if rest and rest != upper:
            upper = rest
            break
    upper = _ALIASES.get(upper, upper)
    return "a" + upper[1:] if upper in ("AVR", "AVL", "AVF") else upper


def derive(lead: str, found: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """float[T]: III, aVR, aVL or aVF from I and II of the same moments; None where that is impossible.

    III = II - I, aVR = -(I + II) / 2, aVL = I - II / 2, aVF = II - I / 2.
    """
    if lead not in FROM_I_AND_II or "I" not in found or "II" not in found:
        return None
    a, b = FROM_I_AND_II[lead]
    return a * found["I"] + b * found["II"]
