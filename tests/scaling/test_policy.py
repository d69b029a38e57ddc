from __future__ import annotations

import pytest

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet.errors import Conflict, Invalid
from controlplane.scaling import policy

pytestmark = pytest.mark.django_db
ANNA = Actor.system("anna")


def test_until_somebody_changes_it_nothing_is_applied_by_itself() -> None:
    assert not policy.current().auto_apply
    assert policy.current().version == 0


def test_a_change_is_one_version_and_one_event_and_hours_are_written_plainly() -> None:
    row = policy.change(actor=ANNA, auto_apply=True, quiet_hours=["mon-fri 22:00 - 6:00"], reason="night")
    assert (row.version, row.quiet_hours) == (1, ["Mon-Fri 22:00-6:00"])
    assert policy.change(actor=ANNA, auto_apply=True).version == 1
    assert AuditEvent.objects.get().reason == "night"
    with pytest.raises(Conflict, match="anna changed it"):
        policy.change(actor=ANNA, expected_version=0, auto_apply=False)


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"level": 1.0}, "level"),
        ({"lengths_level": 0.999}, "lengths_level"),
        ({"lengths_level": float("nan")}, "lengths_level"),
        ({"quiet_s": 5}, "quiet_s"),
        ({"moves_per_hour": 0}, "moves_per_hour"),
        ({"most_gpus": 0}, "most_gpus"),
        ({"price_per_hour": float("nan")}, "price_per_hour"),
        ({"time_zone": "Moon/Far"}, "time_zone"),
        ({"quiet_hours": ["at night"]}, "hours"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_changes(values: dict[str, object], code: str) -> None:
    with pytest.raises(Invalid) as refused:
        policy.change(actor=ANNA, auto_apply=True, **values)
    assert [problem.code for problem in refused.value.problems] == [code]
    assert not policy.current().auto_apply
