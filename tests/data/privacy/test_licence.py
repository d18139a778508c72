"""Licences in fields: what is known of an identifier, what is said, and what a mixture asks for."""

import pytest

from medjax.data.privacy.licence import Licence, check_free, combine, declare, known_licences, of, parse
from medjax.data.sources import Schema
from medjax.errors import UserError


@pytest.mark.parametrize(
    ("text", "identifier", "duties"),
    [
        ("CC0-1.0", "CC0-1.0", ()),
        ("cc by nc sa 4.0", "CC-BY-NC-SA-4.0", ("non-commercial", "share-alike", "attribution")),
        ("CC-BY", "CC-BY-4.0", ("attribution",)),
        ("ODbL", "ODbL-1.0", ("share-alike", "attribution")),
        ("PhysioNet Credentialed Health Data License 1.5.0", "PhysioNet-Credentialed-1.5.0", ("credentialed access",)),
        ("per image", "per image", ("terms unknown",)),
        ("", "unknown", ("terms unknown",)),
    ],
)
def test_identifiers_are_known_in_any_spelling(text, identifier, duties):
    assert (parse(text).identifier, parse(text).duties) == (identifier, duties)


def test_restricted_are_credentialed_non_commercial_and_unknown_ones():
    restricted = {name for name in known_licences() if parse(name).restricted}
    assert all("NC" in name or "PhysioNet" in name or "Stanford" in name for name in restricted)
    assert {"CC-BY-4.0", "CC-BY-SA-4.0", "CC0-1.0", "ODbL-1.0"} <= set(known_licences()) - restricted
    assert Licence().restricted


def test_what_is_said_overrides_what_is_known():
    assert not declare(parse("ours"), non_commercial=False, credentialed=None).restricted
    assert declare(parse("CC-BY-4.0"), credentialed=True).duties == ("credentialed access", "attribution")
    assert declare(parse("CC-BY-4.0"), credentialed=None) == parse("CC-BY-4.0")


def test_a_mixture_has_the_duties_of_all():
    mixed = combine([parse("CC0-1.0"), parse("CC-BY-NC-4.0"), parse("CC0-1.0")])
    assert str(mixed) == "CC0-1.0 + CC-BY-NC-4.0 (non-commercial, attribution)"
    assert combine([mixed, parse("?")]).restricted and not combine([parse("MIT"), parse("CC0")]).restricted
    assert combine([]).restricted


@pytest.mark.parametrize("name", ["CC-BY-NC-SA-4.0", "PhysioNet-Credentialed", "ours"])
def test_passing_weights_on_asks_where_terms_restrict_it(name):
    with pytest.raises(UserError, match=r"data under .*\(.*\).*pass --acknowledge_licence"):
        check_free(parse(name))
    check_free(parse("CC-BY-4.0"))


def test_a_schema_says_its_terms_or_its_identifier_does():
    schema = Schema("x", "x", "CC-BY-NC-4.0", {})
    assert of(schema).non_commercial
    assert not of(Schema("x", "x", "ours", {}, terms=Licence("ours", known=True))).restricted
