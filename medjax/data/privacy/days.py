"""Dates as days since a patient's first study: the order and the distances of studies without the calendar."""

import datetime
import math
from collections.abc import Sequence

from medjax.data.ids import hash_id
from medjax.errors import UserError

_SECONDS = 86400.0


def relative_days(patients: Sequence[str], dates: Sequence[str], key: bytes = b"", spread: int = 0) -> list[float]:
    """float[n]: days since the first study of the same patient, with the fraction of the day where times are given.

    patients: of each study; dates: ISO 8601 days or times, such as 2180-05-06 or 2180-05-06T21:30:00 (a time zone is
    ignored), or empty for unknown, which gives NaN. key, spread: adds to all studies of a patient the same whole number
    of days in [0, spread), a keyed hash of the patient, so that even who was first in a year is not told; with 0
    the first study of everybody is day 0.

    Raises:
      UserError: a date cannot be read; the message does not repeat it.
    """
    days = [_day(text, i) for i, text in enumerate(dates)]
    first: dict[str, float] = {}
    for patient, day in zip(patients, days, strict=True):
        if not math.isnan(day):
            first[patient] = min(day, first.get(patient, math.inf))
    return [day - first.get(p, 0.0) + _offset(p, key, spread) for p, day in zip(patients, days, strict=True)]


def _offset(patient: str, key: bytes, spread: int) -> float:
    return float(int(hash_id(patient, key)[0]) % spread) if spread else 0.0


def _day(text: str, i: int) -> float:
    """Days since an arbitrary day."""
    text = text.strip()
    if not text:
        return math.nan
    try:
        moment = datetime.datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        raise UserError(
            f"the date of study {i + 1} is not written as in ISO 8601; write 2180-05-06, or days as numbers"
        ) from None
    since = moment - datetime.datetime(1900, 1, 1)
    return since.days + since.seconds / _SECONDS


def are_dates(texts: Sequence[str]) -> bool:
    """Whether a column holds dates rather than numbers, by the first cell that is not empty."""
    first = next((t.strip() for t in texts if t.strip()), "0")
    try:
        float(first)
    except ValueError:
        return True
    return len(first) == 8 and first.isdigit()  # 21800506 is a date, not a number of days
