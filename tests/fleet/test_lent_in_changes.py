"""A slot that the pool lends is none of the deployment's own engines, in previews and where partitions are chosen."""

from __future__ import annotations

import pytest

from controlplane.domain.rollout import Move
from controlplane.domain.types import Role
from controlplane.fleet import services
from controlplane.fleet.errors import Refused
from controlplane.fleet.models import Deployment, Partition
from tests.factories import make_deployment, make_node, make_partition, make_ready

pytestmark = pytest.mark.django_db
A, D = Role.AGGREGATED, Role.DECODE


@pytest.fixture
def steady() -> Deployment:
    """Dedicated, with one engine of its own and one that is lent; a GPU is free."""
    node = make_node("n1", gpus=3)
    deployment = make_deployment("steady", overflow=True, max_aggregated=2)
    make_ready(make_partition(node, deployment=deployment, role="aggregated"))
    make_ready(make_partition(node, deployment=deployment, role="aggregated", pool=True, overflow=True))
    make_partition(node)
    return deployment


def engines(seen: dict[str, object]) -> dict[str, tuple[int, int]]:
    return {effect["role"]: (effect["engines_before"], effect["engines_after"]) for effect in seen["effects"]}


def test_it_is_not_counted_before_or_after(steady: Deployment) -> None:
    free = Partition.objects.get(deployment=None)

    seen = services.preview_change([Move(free.pk, steady.pk, A)])

    assert engines(seen) == {"aggregated": (1, 2)}
    assert seen["problems"] == [], "the maximum of two is kept"


def test_the_last_engine_of_its_own_is_the_last(steady: Deployment) -> None:
    own = steady.partitions.get(overflow=False)

    seen = services.preview_change([Move(own.pk, None, None)])

    assert engines(seen) == {"aggregated": (1, 0)}
    assert [problem["code"] for problem in seen["problems"]] == ["would-stop-serving"]


def test_to_take_it_away_takes_nothing_from_the_deployment(steady: Deployment) -> None:
    other = make_deployment("other")
    slot = steady.partitions.get(overflow=True)

    seen = services.preview_change([Move(slot.pk, other.pk, D)])

    assert [effect["deployment"]["name"] for effect in seen["effects"]] == ["other"]
    assert "last-replica" not in {warning["code"] for warning in seen["warnings"]}


def test_it_is_not_chosen_for_a_shift(steady: Deployment) -> None:
    assert services.choose_moves([services.Shift(steady.pk, A, D, gpus=1)]) == [
        Move(steady.partitions.get(overflow=False).pk, steady.pk, D)
    ]
    with pytest.raises(Refused):
        services.choose_moves([services.Shift(steady.pk, A, D, gpus=2)])
