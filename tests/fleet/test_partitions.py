"""How a node is divided."""

from __future__ import annotations

import pytest

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet import services
from controlplane.fleet.errors import Invalid, Refused
from controlplane.fleet.models import Gpu, Partition
from tests.factories import make_gpus, make_node, make_partition, make_ready

pytestmark = pytest.mark.django_db


def layout(partitions: list[Partition]) -> dict[str, list[int]]:
    return {p.name: sorted(p.gpus.values_list("index", flat=True)) for p in partitions}


def codes(error: pytest.ExceptionInfo) -> list[str]:
    return [problem.code for problem in error.value.problems]


@pytest.mark.parametrize(
    ("preset", "groups"),
    [
        ("8x1", [[0], [1], [2], [3], [4], [5], [6], [7]]),
        ("4x2", [[0, 1], [2, 3], [4, 5], [6, 7]]),
        ("2x4", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("1x8", [[0, 1, 2, 3, 4, 5, 6, 7]]),
    ],
)
def test_a_preset_divides_all_gpus_in_order(actor: Actor, preset: str, groups: list[list[int]]) -> None:
    node = make_node(gpus=8)

    made = services.split_node(node.pk, preset=preset, actor=actor)

    assert layout(made) == {f"p{number}": group for number, group in enumerate(groups)}


def test_groups_may_leave_gpus_out(actor: Actor) -> None:
    node = make_node(gpus=4)

    made = services.split_node(node.pk, groups=[[3], [0, 1]], actor=actor)

    assert layout(made) == {"p0": [3], "p1": [0, 1]}
    assert Gpu.objects.get(node=node, index=2).partition is None


def test_a_preset_counts_the_gpus_that_are_there(actor: Actor) -> None:
    node = make_node(gpus=3)
    node.gpus.filter(index=1).update(present=False)

    made = services.split_node(node.pk, preset="2x1", actor=actor)

    assert layout(made) == {"p0": [0], "p1": [2]}


def test_a_new_split_takes_the_place_of_the_old_one(actor: Actor) -> None:
    node = make_node(gpus=2)
    services.split_node(node.pk, preset="2x1", actor=actor)

    services.split_node(node.pk, preset="1x2", actor=actor)

    assert layout(list(node.partitions.all())) == {"p0": [0, 1]}
    event = AuditEvent.objects.filter(verb="split").first()
    assert event.before == {"partitions": {"p0": [0], "p1": [1]}}
    assert event.after == {"partitions": {"p0": [0, 1]}}


def test_an_assigned_partition_is_not_split(actor: Actor) -> None:
    node = make_node()
    partition = make_partition(node, gpus=2, role="decode")

    with pytest.raises(Refused, match=r"Partition p0 is assigned to .* as decode") as error:
        services.split_node(node.pk, preset="2x1", actor=actor)

    assert codes(error) == ["partition-assigned"]
    assert list(node.partitions.all()) == [partition]


def test_a_released_partition_is_not_split_while_its_engine_runs(actor: Actor) -> None:
    node = make_node()
    make_ready(make_partition(node, gpus=2), phase="draining")

    with pytest.raises(Refused) as error:
        services.split_node(node.pk, preset="2x1", actor=actor)

    assert codes(error) == ["partition-busy"]


@pytest.mark.parametrize(
    ("groups", "code"),
    [
        ([[0, 1], [1]], "split-overlaps"),
        ([[0], [7]], "gpu-unknown"),
        ([[]], "partition-empty"),
        ([], "split-empty"),
        ([[0, 1, 2]], "tp-size"),
    ],
)
def test_unlawful_groups_are_refused(actor: Actor, groups: list[list[int]], code: str) -> None:
    node = make_node(gpus=4)

    with pytest.raises(Refused) as error:
        services.split_node(node.pk, groups=groups, actor=actor)

    assert code in codes(error)
    assert not node.partitions.exists()


def test_a_preset_that_does_not_fit_is_refused(actor: Actor) -> None:
    with pytest.raises(Refused):
        services.split_node(make_node(gpus=3).pk, preset="4x2", actor=actor)


@pytest.mark.parametrize("both", [{}, {"preset": "1x1", "groups": [[0]]}])
def test_either_a_preset_or_groups(actor: Actor, both: dict) -> None:
    with pytest.raises(Invalid):
        services.split_node(make_node(gpus=1).pk, actor=actor, **both)


def test_one_partition_more(actor: Actor) -> None:
    node = make_node(gpus=3)
    services.split_node(node.pk, groups=[[0]], actor=actor)

    made = services.create_partition(node.pk, name="spare", gpu_indices=[1, 2], actor=actor)

    assert layout([made]) == {"spare": [1, 2]}


def test_a_gpu_lies_in_one_partition(actor: Actor) -> None:
    node = make_node()
    make_partition(node, gpus=2)

    with pytest.raises(Refused, match="GPU 1 lies in partition p0"):
        services.create_partition(node.pk, name="mine", gpu_indices=[1], actor=actor)


@pytest.mark.parametrize("name", ["", "Upper", "a b", "-x", "a" * 41, "x/y"])
def test_names_that_would_not_do_as_file_names_are_invalid(actor: Actor, name: str) -> None:
    with pytest.raises(Invalid):
        services.create_partition(make_node(gpus=1).pk, name=name, gpu_indices=[0], actor=actor)


def test_a_name_is_used_once_on_a_node(actor: Actor) -> None:
    node = make_node()
    make_partition(node)
    make_gpus(node, 1)

    with pytest.raises(Refused, match="has a partition p0 already"):
        services.create_partition(node.pk, name="p0", gpu_indices=[1], actor=actor)


def test_deleting_frees_the_gpus(actor: Actor) -> None:
    node = make_node()
    partition = make_partition(node, gpus=2)

    services.delete_partition(partition.pk, actor=actor)

    assert list(node.gpus.values_list("partition", flat=True)) == [None, None]
    assert AuditEvent.objects.get(verb="delete").subject_name == f"{node.name}/p0"


def test_an_assigned_partition_is_not_deleted(actor: Actor) -> None:
    with pytest.raises(Refused):
        services.delete_partition(make_partition(role="decode").pk, actor=actor)
