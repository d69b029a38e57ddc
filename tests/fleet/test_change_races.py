"""Changes under contention, and random ones from beginning to end: exactly one wins, and the way always ends."""

from __future__ import annotations

import random
from typing import Any

import pytest

from controlplane.audit.services import Actor
from controlplane.domain.rollout import Move
from controlplane.fleet import services, versions
from controlplane.fleet.errors import Conflict, FleetError
from controlplane.fleet.models import Change, Deployment, Node, Partition, Revision
from controlplane.fleet.publish import spec_of
from tests.factories import make_deployment, make_model, make_node, make_partition, make_ready
from tests.fleet.reporting import status_of, tell
from tests.fleet.test_races import at_once
from workers.contract import Role

pytestmark = pytest.mark.django_db(transaction=True)
ROLES = list(Role)
PETE = Actor(name="pete", source="rest")


def make_fleet() -> tuple[Deployment, list[Partition]]:
    node, deployment = make_node(), make_deployment("chat")
    parts = [make_partition(node, deployment=deployment, role=r, generation=1) for r in ("prefill", "decode", "decode")]
    return deployment, [make_ready(part) for part in parts]


@pytest.mark.parametrize("attempt", range(3))
def test_of_two_operators_with_the_same_plan_exactly_one_wins_and_the_other_plans_again(
    actor: Actor, attempt: int
) -> None:
    deployment, parts = make_fleet()
    version = versions.current()
    moves = [Move(parts[1].pk, deployment.pk, Role.PREFILL)]

    results = at_once(
        *(lambda who=who: services.apply_change(moves, version=version, actor=who) for who in (actor, PETE))
    )

    won = [result for result in results if isinstance(result, Change)]
    lost = [result for result in results if isinstance(result, Conflict)]
    assert (len(won), len(lost)) == (1, 1), results
    assert Change.objects.count() == 1
    assert won[0].actor_name in str(lost[0]), "the loser reads who was faster"
    confirm_all(Node.objects.get())
    again = services.preview_change([Move(parts[2].pk, deployment.pk, Role.AGGREGATED)])
    assert again["version"] > version


def test_two_operators_on_different_models_both_win(actor: Actor) -> None:
    first, parts = make_fleet()
    second = make_deployment("code")
    other = make_partition(make_node())
    version = versions.current()
    results = at_once(
        lambda: services.apply_change([Move(parts[1].pk, first.pk, Role.PREFILL)], version=version, actor=actor),
        lambda: services.apply_change([Move(other.pk, second.pk, Role.DECODE)], version=version, actor=PETE),
    )
    assert all(isinstance(result, Change) for result in results), results
    numbers = list(Revision.objects.values_list("number", flat=True))
    assert numbers == sorted(set(numbers)) == list(range(version + 1, version + 1 + len(numbers)))


def test_whoever_looks_at_once_takes_one_step_together(actor: Actor) -> None:
    deployment, parts = make_fleet()
    moves = [Move(parts[0].pk, deployment.pk, Role.DECODE), Move(parts[1].pk, deployment.pk, Role.PREFILL)]
    change = services.apply_change(moves, version=versions.current(), actor=actor)
    node = Node.objects.get()
    first = Change.objects.get().steps[0]["partition"]
    row = Partition.objects.get(pk=first)
    make_ready(row)

    at_once(*(lambda: services.advance(change.pk) for _ in range(4)))

    node.refresh_from_db()
    change.refresh_from_db()
    assert [step["state"] for step in change.steps] == ["done", "running"]
    assert node.generation == 2


def test_of_two_who_undo_one_wins(actor: Actor) -> None:
    deployment, parts = make_fleet()
    moves = [Move(parts[1].pk, deployment.pk, Role.PREFILL)]
    change = services.apply_change(moves, version=versions.current(), actor=actor)
    confirm_all(Node.objects.get())
    version = versions.current()

    def undo(who: Actor) -> Change:
        back = services.inverse_moves(change.pk)
        return services.apply_change(back, version=version, actor=who, kind="undo", undoes=change.pk)

    results = at_once(lambda: undo(actor), lambda: undo(PETE))
    assert sorted(type(result).__name__ == "Change" for result in results) == [False, True], results


def confirm_all(node: Node) -> None:
    """The node's agent does all that its spec says, and reports it."""
    node.refresh_from_db()
    wanted = {replica.partition for replica in spec_of(node).replicas} if node.spec else set()
    rows = node.partitions.select_related("deployment").exclude(deployment=None).filter(pk__in=wanted)
    tell(node, replicas=tuple(status_of(row, "ready") for row in rows), generation=node.generation)


@pytest.mark.parametrize("seed", range(12))
def test_a_random_change_ends_done_or_stopped_and_its_roll_back_restores(actor: Actor, seed: int) -> None:
    dice = random.Random(seed)
    model = make_model()
    deployments = [make_deployment(f"d{n}", model=model) for n in range(2)]
    nodes = [make_node() for _ in range(2)]
    parts = [_random_part(dice, dice.choice(nodes), deployments) for _ in range(dice.randint(3, 7))]
    before = _lanes(parts)
    moves = [_random_move(dice, part, deployments) for part in dice.sample(parts, dice.randint(1, len(parts)))]
    try:
        change = services.apply_change(moves, version=versions.current(), actor=actor, force=True)
    except FleetError:
        assert _lanes(parts) == before, "what is refused changes nothing"
        return
    turn_back_at = dice.choice([None, 0, 1, 2])
    for number in range(3 * len(parts) + 5):
        if number == turn_back_at and change.is_open:
            services.roll_back_change(change.pk, actor=actor)
        for node in nodes:
            confirm_all(node)
            _require_no_gpu_twice(node)
        change.refresh_from_db()
        if not change.is_open:
            break
    assert change.state in ("done", "rolled_back"), (change.state, change.message, change.steps)
    if change.state == "rolled_back":
        assert _lanes(parts) == before
    else:
        wanted = {move.partition: (move.deployment, move.role.value if move.role else "") for move in moves}
        assert _lanes(parts) == before | wanted


def _random_part(dice: random.Random, node: Node, deployments: list[Deployment]) -> Partition:
    if dice.random() < 0.25:
        return make_partition(node)
    part = make_partition(node, deployment=dice.choice(deployments), role=dice.choice(ROLES).value, generation=1)
    return make_ready(part) if dice.random() < 0.8 else part


def _random_move(dice: random.Random, part: Partition, deployments: list[Deployment]) -> Move:
    if dice.random() < 0.3:
        return Move(part.pk, None, None)
    return Move(part.pk, dice.choice(deployments).pk, dice.choice(ROLES))


def _lanes(parts: list[Partition]) -> dict[int, tuple[Any, str]]:
    rows = Partition.objects.filter(pk__in=[part.pk for part in parts])
    return {row.pk: (row.deployment_id, row.role) for row in rows}


def _require_no_gpu_twice(node: Node) -> None:
    spec = spec_of(Node.objects.get(pk=node.pk))
    gpus = [uuid for replica in spec.replicas for uuid in replica.gpus] if spec else []
    assert len(gpus) == len(set(gpus))
