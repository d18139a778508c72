"""WFDB records (PhysioNet) as ECG arrays in millivolt, with the leads in a canonical order."""

from pathlib import Path

import numpy as np

from medjax.errors import UserError

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
_MILLIVOLT = {"mv": 1.0, "uv": 1e-3, "v": 1e3, "nv": 1e-6}


def read_ecg(path: str | Path, rate: float, leads: tuple[str, ...] = LEADS) -> np.ndarray:
    """float32[C, T]: the `leads` of a WFDB record in mV, at `rate` samples per second.

    Another rate in the file is resampled (polyphase filter).

    Raises:
      UserError: a missing or truncated file, a missing lead, an unknown unit, or a sample that is not a number.
    """
    header = Path(f"{path}.hea")
    if not header.is_file():
        raise UserError(f"ECG {header} does not exist")
    record = _read(path)
    found = {_standard(name): i for i, name in enumerate(record.sig_name or [])}
    missing = [lead for lead in leads if lead not in found]
    if missing:
        raise UserError(f"ECG {header} lacks lead {missing[0]}; it has {', '.join(found)}")
    columns = [found[lead] for lead in leads]
    units = {record.units[i] for i in columns}
    unknown = [u for u in units if u.lower() not in _MILLIVOLT]
    if unknown:
        raise UserError(f"ECG {header} is in {unknown[0]!r}; known units: mV, uV, V")
    scale = np.array([_MILLIVOLT[record.units[i].lower()] for i in columns])
    signal = record.p_signal[:, columns] * scale[None]
    bad = ~np.isfinite(signal)
    if bad.any():
        t, c = np.argwhere(bad)[0]
        raise UserError(
            f"ECG {header} holds {bad.sum()} samples that are not numbers, the first in lead {leads[c]} at {t}"
        )
    return _resample(signal, record.fs, rate).T.astype(np.float32)


def _read(path: str | Path):
    try:
        import wfdb
    except ImportError:
        raise UserError("reading WFDB records needs the package wfdb; pip install 'medjax[readers]'") from None
    try:
        record = wfdb.rdrecord(str(path))
    except Exception as error:  # wfdb raises many types for damaged files
        raise UserError(f"ECG {path} cannot be read ({type(error).__name__}: {error}); is its .dat complete?") from None
    if record.p_signal is None or not len(record.p_signal):
        raise UserError(f"ECG {path} has no samples")
    return record


def _standard(name: str) -> str:
    """Lead names differ in case between archives: AVR, avr and aVR are one."""
    upper = name.strip().upper()
    return "a" + upper[1:] if upper.startswith("AV") else upper


def _resample(signal_tc: np.ndarray, have: float, want: float) -> np.ndarray:
    if have == want:
        return signal_tc
    from fractions import Fraction

    from scipy.signal import resample_poly

    ratio = Fraction(want / have).limit_denominator(1000)
    return resample_poly(signal_tc, ratio.numerator, ratio.denominator, axis=0)
