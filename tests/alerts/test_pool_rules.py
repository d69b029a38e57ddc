"""When the pool's reservation is short, and when nothing can be said of it."""

from __future__ import annotations

import pytest

from controlplane.alerts.models import Alert
from controlplane.fleet.models import Partition, PoolAim
from tests.alerts.test_default_rules import Play, play
from tests.factories import make_deployment, make_node, make_partition

__all__ = ["play"]


@pytest.mark.parametrize(
    ("wanted", "by_gpus", "short"),
    [(None, {}, None), (1, {}, 0), (3, {}, 2), (3, {"1": 1, "2": 2}, 2), (1, {"2": 1}, 1)],
)
def test_the_reservation_is_short_of_what_is_wanted_of_each_size_and_never_by_what_is_not_known(
    play: Play, wanted: int | None, by_gpus: dict[str, int], short: int | None
) -> None:
    make_deployment("sporadic", mode="pooled")
    PoolAim.objects.create(pk=1, keep_alive_s=300, slots=wanted, by_gpus=by_gpus, reason="why", at=play.stage.now)
    Partition.objects.filter(pk=make_partition(play.node, name="p1").pk).update(pool=True)
    play.look(2, every_s=121)
    values = list(Alert.objects.filter(rule="pool-short", state="firing").values_list("value", flat=True))
    assert values == ([] if not short else [float(short)])


def test_a_slot_whose_gpu_is_lost_is_not_held_and_without_pooled_models_nothing_is_short(play: Play) -> None:
    PoolAim.objects.create(pk=1, keep_alive_s=300, slots=1, reason="why", at=play.stage.now)
    play.look(2, every_s=121)
    assert not Alert.objects.filter(rule="pool-short").exists()
    make_deployment("sporadic", mode="pooled")
    slot = make_partition(make_node("not-reporting"), name="p1")
    Partition.objects.filter(pk=slot.pk).update(pool=True)
    play.look(2, every_s=121)
    assert not Alert.objects.filter(rule="pool-short").exists()
    slot.gpus.update(health="lost")
    play.look(2, every_s=121)
    assert Alert.objects.get(rule="pool-short").state == "firing"
