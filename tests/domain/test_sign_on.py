"""Which role the groups of a person give."""

from __future__ import annotations

import pytest

from controlplane.domain.sign_on import groups_in, mapping, role_of

ROLES = {"forebay-admins": "admin", "oncall": "operator", "all": "viewer"}


def test_a_mapping_is_read_from_one_line() -> None:
    text = " forebay-admins=admin, oncall = operator,cn=staff,dc=example"
    with pytest.raises(ValueError, match="cn=staff"):
        mapping(text)
    assert mapping("forebay-admins=admin, cn=x=operator,") == {"forebay-admins": "admin", "cn=x": "operator"}
    assert mapping("") == {}


@pytest.mark.parametrize("text", ["oncall", "=admin", "oncall=king", "oncall="])
def test_what_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no GROUP=ROLE"):
        mapping(text)


@pytest.mark.parametrize(
    ("groups", "role"),
    [(["oncall", "forebay-admins"], "admin"), (["all", "oncall"], "operator"), (["ALL"], ""), ([], "")],
)
def test_the_highest_role_counts(groups: list[str], role: str) -> None:
    assert role_of(groups, ROLES) == role


def test_who_is_in_none_gets_what_is_set() -> None:
    assert role_of(["x"], ROLES, "viewer") == "viewer"
    assert role_of(["oncall"], ROLES, "viewer") == "operator"


def test_groups_are_found_flat_and_nested_and_never_guessed() -> None:
    assert groups_in({"groups": ["a", 1, None, "b"]}, "groups") == ["a", "b"]
    assert groups_in({"groups": "a"}, "groups") == ["a"]
    assert groups_in({"realm_access": {"roles": ["a"]}}, "realm_access.roles") == ["a"]
    assert groups_in({"https://example.com/groups": ["a"]}, "https://example.com/groups") == ["a"]
    assert groups_in({"groups": {"a": 1}}, "groups") == groups_in({}, "groups") == groups_in({}, "a.b") == []
