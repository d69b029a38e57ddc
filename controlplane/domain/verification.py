"""Which of a deployment's engines are sent requests, while some of them have not answered the gateway's own yet. Pure.

Serving beats verifying: an engine that nothing is known against is used rather than nobody, and any engine is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum


class Standing(StrEnum):
    """unknown -> good | bad; bad -> good once it answers. An engine that served before is bad only while it has never
    answered."""

    UNKNOWN = "unknown"
    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One engine in a role of the deployment. `admitted`: it was sent requests before."""

    id: int
    answers: bool  # decode and aggregated engines do; a prefill engine only helps
    admitted: bool
    standing: Standing


@dataclass(frozen=True, slots=True)
class Chosen:
    use: frozenset[int]
    admit: frozenset[int]  # of those, the ones that stay in use until something is known against them


def choose(candidates: Collection[Candidate]) -> Chosen:
    """The engines to use now. A decode engine can do without prefill engines, so none of those is used untried where
    there is one."""
    good = {c.id for c in candidates if c.standing is Standing.GOOD}
    served = {c.id for c in candidates if c.admitted and c.standing is not Standing.BAD}
    use, admit = good | served, set(good)
    answering = [c for c in candidates if c.answers] or list(candidates)
    if not any(c.id in use for c in answering):
        fresh = {c.id for c in answering if c.standing is Standing.UNKNOWN}
        admit |= fresh
        use |= fresh or {c.id for c in answering}
    return Chosen(frozenset(use), frozenset(admit))


def until_paired(
    chosen: Chosen, prefill: Collection[Candidate], decode: Collection[Candidate], paired: Collection[int]
) -> Chosen:
    """Of a model that is woken as a pair: neither half is used before both are, so that whoever waits is served by the
    pair. `paired`: decode engines that were used with a prefill engine once; they go on without one, as any decode
    engine does. So do those whose every prefill engine is known to be bad."""
    helping, answering = ({c.id for c in found} for found in (prefill, decode))
    if chosen.use & helping and chosen.use & answering:
        return chosen
    if chosen.use & answering & set(paired):
        return chosen
    if prefill and decode and all(c.standing is Standing.BAD for c in prefill):
        return chosen
    return Chosen(chosen.use - helping - answering, chosen.admit - helping - answering)


def judge(results: Iterable[bool | None], *, admitted: bool, hurry: bool = False) -> Standing:
    """What the trials of one engine say of it: True, False, or None where one is not over.

    A new engine waits for all of them, and has to pass more than it fails, for one partner may be at fault; in a
    `hurry` those that are not over are left out of it once half have passed. One that serves already needs to have
    passed any."""
    found = list(results)
    passed, failed = found.count(True), found.count(False)
    pending = len(found) - passed - failed
    if admitted:
        return Standing.GOOD if passed else Standing.BAD if failed and not pending else Standing.UNKNOWN
    if pending and not (hurry and passed * 2 >= len(found)):
        return Standing.UNKNOWN
    if not found:
        return Standing.UNKNOWN
    return Standing.GOOD if passed > failed else Standing.BAD
