"""The terms of a data set: they go from its manifest to runs, reports and exports; restricted ones are asked about."""

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from medjax.errors import UserError

UNKNOWN = "unknown"
_AND = " + "


@dataclass(frozen=True)
class Licence:
    """What a licence asks for. Obligations, and no legal advice: the text of the licence holds.

    identifier: of SPDX where it has one. credentialed: the data may go only to those who have signed for them.
    non_commercial: no commercial use. share_alike: what is made from the data carries the same licence. attribution:
    the source must be named. known: false where nobody has said what the terms are; then nothing may be assumed.
    """

    identifier: str = UNKNOWN
    credentialed: bool = False
    non_commercial: bool = False
    share_alike: bool = False
    attribution: bool = False
    known: bool = False

    @property
    def restricted(self) -> bool:
        """Whether an export must be asked for explicitly: credentialed, non-commercial, or of unknown terms."""
        return self.credentialed or self.non_commercial or not self.known

    @property
    def duties(self) -> tuple[str, ...]:
        """In words, such as ("non-commercial", "attribution"); what nobody has said is "terms unknown"."""
        words = {
            "credentialed access": self.credentialed,
            "non-commercial": self.non_commercial,
            "share-alike": self.share_alike,
            "attribution": self.attribution,
            "terms unknown": not self.known,
        }
        return tuple(word for word, holds in words.items() if holds)

    def __str__(self) -> str:
        return f"{self.identifier} ({', '.join(self.duties)})" if self.duties else self.identifier


def _known(identifier: str, **duties: bool) -> Licence:
    return Licence(identifier, known=True, **duties)


def _creative_commons() -> Iterable[Licence]:
    for version in ("2.0", "2.5", "3.0", "4.0"):
        for parts in ("BY", "BY-SA", "BY-ND", "BY-NC", "BY-NC-SA", "BY-NC-ND"):
            yield _known(
                f"CC-{parts}-{version}", non_commercial="NC" in parts, share_alike="SA" in parts, attribution=True
            )


# Sources: creativecommons.org/licenses, opendatacommons.org/licenses, physionet.org/about/licenses.
_LICENCES = (
    *(_known(name) for name in ("CC0-1.0", "PDDL-1.0", "Unlicense")),
    *_creative_commons(),
    *(_known(name, attribution=True) for name in ("ODC-By-1.0", "MIT", "Apache-2.0", "BSD-3-Clause")),
    _known("ODbL-1.0", share_alike=True, attribution=True),
    *(_known(f"PhysioNet-{kind}-1.5.0", credentialed=True) for kind in ("Credentialed", "Restricted")),
    _known("Stanford-Research-Use", credentialed=True, non_commercial=True),
)
_TABLE = {re.sub(r"[^a-z0-9]", "", x.identifier.lower()): x for x in _LICENCES}
# Without a version the newest; and the names that archives give their own.
_TABLE |= {
    "physionetcredentialed": _TABLE["physionetcredentialed150"],
    "physionetcredentialedhealthdatalicense150": _TABLE["physionetcredentialed150"],
    "physionetcredentialedhealthdatalicence150": _TABLE["physionetcredentialed150"],
    "physionetrestricted": _TABLE["physionetrestricted150"],
    "cc0": _TABLE["cc010"],
    "odbl": _TABLE["odbl10"],
    **{k.removesuffix("40"): x for k, x in _TABLE.items() if re.fullmatch(r"ccby[a-z]*40", k)},
}


def known_licences() -> list[str]:
    """The identifiers whose terms are known."""
    return [x.identifier for x in _LICENCES]


def parse(text: str) -> Licence:
    """The licence of an identifier such as "CC-BY-NC-SA-4.0", in any spelling of its dashes and capitals."""
    return _TABLE.get(re.sub(r"[^a-z0-9]", "", text.lower()), Licence(text.strip() or UNKNOWN))


def declare(licence: Licence, **duties: bool | None) -> Licence:
    """The licence with the duties that are said, which override the table and make it known; None says nothing."""
    said = {name: value for name, value in duties.items() if value is not None}
    return dataclasses.replace(licence, **said, known=True) if said else licence


def of(described: Any) -> Licence:
    """The terms of a manifest or a schema; those made before terms were kept say their identifier alone."""
    return described.terms or parse(described.licence)


def check_free(licence: Licence) -> None:
    """Raises UserError where weights that come from such data are not to be passed on without a thought."""
    if licence.restricted:
        raise UserError(
            f"the weights come from data under {licence}, which may bind who gets them and for what; read the licence, "
            "and pass --acknowledge_licence to export them with these terms in the model card"
        )


def combine(licences: Iterable[Licence]) -> Licence:
    """The terms of what is made from several data sets: the duties of all; known if all are."""
    parts = list(dict.fromkeys(licences))
    if not parts:
        return Licence()
    duties = ("credentialed", "non_commercial", "share_alike", "attribution")
    return Licence(
        _AND.join(dict.fromkeys(name for x in parts for name in x.identifier.split(_AND))),
        **{name: any(getattr(x, name) for x in parts) for name in duties},
        known=all(x.known for x in parts),
    )
