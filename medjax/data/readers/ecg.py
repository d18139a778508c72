"""What the ECG readers share: leads in a canonical order, millivolt, one rate, and what becomes of gaps.

The sample policy. A raw item is float32[C, T] in mV at the rate asked for, C the leads asked for in that order. No
sample is clipped or shifted, and none filtered but against aliasing. A lead that a file lacks, or that is given up, is
a row of NaN (where the options allow it), which transforms make zeros with a false lead mask; nothing else is NaN.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from medjax.data.readers.leads import LEADS, canonical, derive
from medjax.errors import UserError

MAX_SIGNALS = 256  # of a file
MAX_SAMPLES = 2**26  # of all leads read: 5 minutes of 12 leads at 18 kHz, or 24 hours of 3 leads at 256 Hz
MAX_RATE = 1e5
_MILLIVOLT = {"mv": 1.0, "uv": 1e-3, "v": 1e3, "nv": 1e-6}
_FLAT = 1e-3  # mV between the lowest and the highest sample
_SATURATED = 0.05  # share of samples that are the lowest, or the highest


@dataclass(frozen=True)
class EcgOptions:
    """rate: samples per second of the result; another rate in the file is resampled, with a low-pass filter against
    aliasing. leads: those wanted, in order; others in the file, such as Frank's, are ignored. derive: III, aVR, aVL and
    aVF that are not in the file come from I and II. missing_leads: a lead that is not there either makes the record
    unusable ("refuse") or is left empty ("zero"). max_gap: seconds that are not numbers and are bridged by a straight
    line; a lead with a longer gap counts as missing. bad_leads: a flat or saturated lead is kept, counts as missing
    ("zero"), or makes the record unusable ("refuse"); see `fault`. unit: of every lead, where the file's own is absent
    or wrong: mV, uV, V or nV. start, seconds: the part to read, 0 seconds to the end. min_seconds: shorter records are
    refused.
    """

    rate: float
    leads: tuple[str, ...] = LEADS
    derive: bool = True
    missing_leads: Literal["refuse", "zero"] = "refuse"
    max_gap: float = 0.0
    bad_leads: Literal["keep", "zero", "refuse"] = "keep"
    unit: str = ""
    start: float = 0.0
    seconds: float = 0.0
    min_seconds: float = 0.0

    def __post_init__(self):
        if not 1 <= self.rate <= MAX_RATE:
            raise UserError(f"the rate of an ECG must be 1 to {MAX_RATE:g} samples per second, got {self.rate}")
        if not self.leads or len({canonical(lead) for lead in self.leads}) < len(self.leads):
            raise UserError(f"leads of an ECG must be named once each, got {', '.join(self.leads) or '(none)'}")
        for name in ("max_gap", "start", "seconds", "min_seconds"):
            if not 0 <= getattr(self, name) <= 1e9:
                raise UserError(f"{name} of an ECG must be seconds from 0 to 1e9, got {getattr(self, name)}")
        if self.unit:
            _millivolt(self.unit, "option unit of an ECG")

    def wanted(self) -> set[str]:
        """The leads to look for in a file, with those that others are derived from."""
        return {canonical(lead) for lead in self.leads} | ({"I", "II"} if self.derive else set())

    def part(self, samples: int, rate: float) -> tuple[int, int]:
        """The first sample to read of a lead and the one after the last."""
        first = min(samples, round(self.start * rate))
        return first, min(samples, first + math.ceil(self.seconds * rate)) if self.seconds else samples


@dataclass(frozen=True)
class Trace:
    """A lead as a file holds it. unit: as written there. rate: samples per second. values: float[T], NaN in gaps."""

    name: str
    unit: str
    rate: float
    values: np.ndarray


def read_ecg(path: str | Path, rate: float, leads: Sequence[str] = LEADS) -> np.ndarray:
    """float32[C, T]: an EDF file, or a WFDB record with or without ".hea".

    Raises:
      UserError: it cannot be read, or is a CSV file, which needs options.
    """
    from medjax.data.readers import reader
    from medjax.data.readers.sniff import reader_for

    return reader(reader_for(path, "ecg"))(Path(path), {"rate": rate, "leads": tuple(leads)})


def assemble(traces: Sequence[Trace], options: EcgOptions, where: str) -> np.ndarray:
    """float32[C, T]: the leads that `options` ask for, from what a file holds. where: how errors call the file.

    Raises:
      UserError: a lead is missing, twice there, broken or in an unknown unit, or the record is too short.
    """
    wanted, found = options.wanted(), {}
    check_size(0, math.ceil(sum(len(t.values) / t.rate for t in traces) * options.rate), f"{where} at this rate")
    for trace in traces:
        name = canonical(trace.name)
        if name in found:
            raise UserError(f"{where} has lead {name} twice; keep one of them")
        if name in wanted:
            found[name] = _usable(trace, name, options, where)
    length = min((len(x) for x in found.values()), default=0)
    if any(len(x) > length + 1 for x in found.values()):  # rounding alone differs by one
        raise UserError(f"{where} has leads of different lengths; cut them to the same seconds")
    found = {name: x[:length] for name, x in found.items()}
    rows = [_row(canonical(lead), found, length, options, where, traces) for lead in options.leads]
    signal = np.stack(rows).astype(np.float32)
    if not length or np.isnan(signal).all():
        raise UserError(f"{where} has no samples of the leads {', '.join(options.leads)}")
    if length < options.min_seconds * options.rate:
        raise UserError(f"{where} is {length / options.rate:g} s long, and min_seconds is {options.min_seconds:g}")
    if not np.isfinite(signal[~np.isnan(signal).all(axis=1)]).all():
        raise UserError(f"{where} has samples beyond the range of float32; is its gain right?")
    return signal


def _row(lead: str, found, length: int, options: EcgOptions, where: str, traces) -> np.ndarray:
    if lead in found:
        return found[lead]
    if options.derive and (row := derive(lead, found)) is not None:
        return row
    if options.missing_leads == "zero":
        return np.full(length, np.nan)
    has = ", ".join(canonical(t.name) for t in traces) or "none that is known"
    raise UserError(f"{where} lacks lead {lead}; it has {has}; missing_leads='zero' leaves such leads empty")


def _usable(trace: Trace, name: str, options: EcgOptions, where: str) -> np.ndarray:
    """float64[T] in mV at the rate asked for; NaN throughout where the lead is given up."""
    scale = _millivolt(options.unit or trace.unit, where)
    values, fault_name = _bridge(trace.values * scale, options.max_gap * trace.rate), ""
    if (bad := ~np.isfinite(values)).any():
        fault_name = f"{bad.sum()} samples that are not numbers, the first in lead {name} at {np.argmax(bad)}"
        if options.missing_leads == "refuse":
            raise UserError(f"{where} holds {fault_name}; max_gap={options.max_gap:g} s bridges shorter gaps")
    elif options.bad_leads != "keep" and (fault_name := fault(values)) and options.bad_leads == "refuse":
        raise UserError(f"{where} has lead {name} {fault_name}; bad_leads='zero' leaves such leads empty")
    out = resample(np.zeros_like(values) if fault_name else values, trace.rate, options.rate)
    return np.full_like(out, np.nan) if fault_name else out


def fault(values: np.ndarray) -> str:
    """What is wrong with a lead, float[T] in mV at the rate of its file: "flat" (its samples within 1 uV),
    "saturated" (at least 5 % of them are its highest value, or its lowest), or "".
    """
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    if high - low < _FLAT:
        return "flat"
    return "saturated" if max((values == low).mean(), (values == high).mean()) >= _SATURATED else ""


def resample(values: np.ndarray, have: float, want: float) -> np.ndarray:
    """float64[ceil(T want / have)]: a polyphase filter with an antialiasing low-pass (scipy's, a Kaiser window).

    The line from the first to the last sample is taken off before and added after, so that an offset of the baseline
    does not ring at the ends.
    """
    if have == want:
        return values
    from scipy.signal import resample_poly

    ratio = Fraction(want).limit_denominator(1000) / Fraction(have).limit_denominator(1000)
    if max(ratio.numerator, ratio.denominator) > 20000:
        ratio = ratio.limit_denominator(1000)
    if not ratio:
        raise UserError(f"an ECG of {have:g} samples per second is not resampled to {want:g}; ask for at least 1/1000")
    return resample_poly(values, ratio.numerator, ratio.denominator, padtype="line")


def _bridge(values: np.ndarray, longest: float) -> np.ndarray:
    """Gaps of at most `longest` samples by a straight line; those at an end take the nearest sample."""
    bad = ~np.isfinite(values)
    if not bad.any() or bad.all() or longest < 1:
        return values
    edges = np.flatnonzero(np.diff(bad, prepend=False, append=False))
    at = np.arange(len(values))
    filled = np.interp(at, at[~bad], values[~bad])
    for first, after in zip(edges[::2], edges[1::2], strict=True):
        if after - first > longest:
            filled[first:after] = np.nan
    return filled


def _millivolt(unit: str, where: str) -> float:
    scale = _MILLIVOLT.get(unit.strip().lower().replace("\u00b5", "u").replace("\u03bc", "u"))
    if scale is None:
        raise UserError(f"{where} is in {unit!r}; known units: mV, uV, V, nV (option unit)")
    return scale


def check_size(signals: int, samples: int, where: str) -> None:
    """Raises UserError where a file claims, or a part of it has, more than fits into memory."""
    if signals > MAX_SIGNALS:
        raise UserError(f"{where} claims {signals} signals; at most {MAX_SIGNALS} are read")
    if samples > MAX_SAMPLES:
        raise UserError(f"{where} has {samples} samples, at most {MAX_SAMPLES} are read; take a part with seconds=")


def check_rate(rate: float, where: str) -> None:
    """Raises UserError for a rate that no ECG has."""
    if not 1 <= rate <= MAX_RATE:
        raise UserError(f"{where} claims {rate:g} samples per second; 1 to {MAX_RATE:g} are read")
