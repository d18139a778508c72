"""Which radiograph, ECG and lab tests of MIMIC make one example."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medjax.data.sources.lab_events import SYMILE_LABS, Window, first_values
from medjax.data.sources.layout import day_of, find_table, stream_rows
from medjax.data.sources.mimic_cxr import Radiograph

_STATEMENTS = tuple(f"report_{i}" for i in range(18))  # of machine_measurements.csv


@dataclass(frozen=True, slots=True)
class Joined:
    """An example: a radiograph with what belongs to it. group: examples of one group are never told apart. day: since
    the subject's first event. ecg: its record, relative to the archive. labs: float32[F] with NaN for missing.
    """

    name: str
    group: str
    radiograph: Radiograph
    day: float
    ecg: str = ""
    statements: str = ""
    labs: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class _Ecg:
    study: str
    day: float
    path: str


def by_study(radiographs: Sequence[Radiograph]) -> list[Joined]:
    """Each radiograph for itself."""
    first = _first_days((r.subject, r.day) for r in radiographs)
    return [Joined(f"study {r.study}", r.study, r, r.day - first[r.subject]) for r in radiographs]


def by_window(
    radiographs: Sequence[Radiograph], ecg: Path, days: float, nearest: bool, statements: bool
) -> list[Joined]:
    """Each pair of a radiograph and an ECG of its subject at most `days` apart, or with the nearest of them alone.

    Pairs that share the radiograph are one group; those that share the ECG are of one patient. The distance is taken
    between the times, where MoRE's code takes the date of the radiograph.
    """
    recorded = _read_ecgs(ecg, {r.subject for r in radiographs})
    first = _first_days(
        [*((r.subject, r.day) for r in radiographs), *((s, e.day) for s in recorded for e in recorded[s])]
    )
    pairs = []
    for r in radiographs:
        close = [e for e in recorded.get(r.subject, ()) if abs(e.day - r.day) <= days]
        if nearest:
            close = sorted(close, key=lambda e: abs(e.day - r.day))[:1]
        pairs += [(r, e) for e in close]
    said = _read_statements(ecg, {e.study for _, e in pairs}) if statements else {}
    return [
        Joined(
            f"study {r.study} with ECG {e.study}",
            r.study,
            r,
            r.day - first[r.subject],
            ecg=e.path,
            statements=said.get(e.study, ""),
        )
        for r, e in pairs
    ]


def by_admission(radiographs: Sequence[Radiograph], ecg: Path, hosp: Path) -> list[Joined]:
    """Each admission with an ECG and a lab value within 24 hours of it, and a labelled radiograph after 24 to 72 hours:
    the first of each.
    """
    taken: dict[str, list[Radiograph]] = defaultdict(list)
    for r in radiographs:
        if r.labels:
            taken[r.subject].append(r)
    recorded = _read_ecgs(ecg, taken.keys())
    admissions = [
        (subject, admission, day_of(time, "admissions.csv"))
        for subject, admission, time in stream_rows(
            find_table(hosp, "admissions.csv"), ("subject_id", "hadm_id", "admittime")
        )
        if subject in taken
    ]
    first = _first_days((subject, day) for subject, _, day in admissions)
    found = {}
    for subject, admission, day in admissions:
        after = [r for r in taken[subject] if 1 < r.day - day <= 3]
        around = [e for e in recorded.get(subject, ()) if abs(e.day - day) <= 1]
        if after and around:
            found[admission] = min(after, key=lambda r: r.day), min(around, key=lambda e: e.day), day
    windows = {admission: Window(r.subject, day - 1, day + 1) for admission, (r, _, day) in found.items()}
    events = stream_rows(find_table(hosp, "labevents.csv"), ("subject_id", "itemid", "charttime", "valuenum"))
    labs = first_values(events, windows, tuple(SYMILE_LABS))
    return [
        Joined(f"admission {admission}", admission, r, day - first[r.subject], ecg=e.path, labs=labs[admission])
        for admission, (r, e, day) in found.items()
        if admission in labs
    ]


def _first_days(events: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The day of each subject's first event."""
    out: dict[str, float] = {}
    for subject, day in events:
        out[subject] = min(day, out.get(subject, day))
    return out


def _read_ecgs(folder: Path, subjects: Iterable[str]) -> dict[str, list[_Ecg]]:
    wanted, out = set(subjects), defaultdict(list)
    columns = ("subject_id", "study_id", "ecg_time", "path")
    for subject, study, time, path in stream_rows(find_table(folder, "record_list.csv"), columns):
        if subject in wanted:
            out[subject].append(_Ecg(study, day_of(time, "record_list.csv"), path))
    return out


def _read_statements(folder: Path, studies: set[str]) -> dict[str, str]:
    """What the machine wrote of each ECG."""
    rows = stream_rows(find_table(folder, "machine_measurements.csv"), ("study_id", *_STATEMENTS))
    return {study: " ".join(x.strip() for x in said if x.strip()) for study, *said in rows if study in studies}
