"""Single sign-on: which role the groups of a person give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

ORDER = ("viewer", "operator", "admin")


def mapping(text: str) -> dict[str, str]:
    """`forebay-admins=admin,oncall=operator` as group -> role. A group's name may hold `=`; ValueError for the rest."""
    found: dict[str, str] = {}
    for part in (part.strip() for part in text.split(",")):
        if not part:
            continue
        group, is_pair, role = part.rpartition("=")
        if not is_pair or not group.strip() or role.strip() not in ORDER:
            raise ValueError(f"{part!r} is no GROUP=ROLE with a role of {', '.join(ORDER)}")
        found[group.strip()] = role.strip()
    return found


def role_of(groups: Iterable[str], roles: Mapping[str, str], otherwise: str = "") -> str:
    """The highest role that one of the groups gives; `otherwise` where none does; "" is no role."""
    given = {roles[group] for group in groups if group in roles}
    return max(given, key=ORDER.index, default=otherwise)


def groups_in(claims: Mapping[str, object], name: str) -> list[str]:
    """The groups a claim tells: a list of names, or one name. `name` may lead inwards, as `realm_access.roles`."""
    value: object = claims.get(name)
    if value is None and "." in name:
        outer, _, inner = name.partition(".")
        nested = claims.get(outer)
        return groups_in(nested, inner) if isinstance(nested, Mapping) else []
    if isinstance(value, str):
        return [value]
    return [group for group in value if isinstance(group, str)] if isinstance(value, list) else []
