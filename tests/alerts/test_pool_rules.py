"""When the pool's reservation is short, and when nothing can be said of it."""

from __future__ import annotations

from importlib import import_module

import pytest
from django.apps import apps

from controlplane.alerts.models import Alert, AlertRule
from controlplane.fleet.models import Partition, PoolAim
from tests.alerts.test_default_rules import Play, play
from tests.factories import make_deployment, make_gpu, make_node, make_partition

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


def test_a_larger_slot_is_held_for_what_a_smaller_one_would_do_for(play: Play) -> None:
    make_deployment("sporadic", mode="pooled")
    PoolAim.objects.create(pk=1, keep_alive_s=300, slots=2, by_gpus={"1": 1, "2": 1}, reason="why", at=play.stage.now)
    for name in ("large-0", "large-1"):
        gpus = [make_gpu(play.node), make_gpu(play.node)]
        Partition.objects.filter(pk=make_partition(play.node, name=name, gpus=gpus).pk).update(pool=True)
    play.look(2, every_s=121)
    assert not Alert.objects.filter(rule="pool-short").exists()


@pytest.mark.parametrize("meanwhile", [False, True])
def test_the_rules_settings_live_through_an_upgrade_and_back_whoever_made_rows_meanwhile(
    db: None, meanwhile: bool
) -> None:
    moved = import_module("controlplane.alerts.migrations.0003_pool_short_is_of_the_reservation")
    AlertRule.objects.all().delete()
    row = {"enabled": False, "for_s": 7.0, "severity": "info"}
    AlertRule.objects.create(key="pool-short", threshold=45.0, **row)
    for step, key in (
        (moved.rename, "pool-waiting"),
        (moved.rename_back, "pool-short"),
        (moved.rename, "pool-waiting"),
    ):
        if meanwhile:
            AlertRule.objects.create(key=key, threshold=1.0, **row)
        step(apps, None)
        assert list(AlertRule.objects.filter(key=key).values_list("threshold", flat=True)) == [45.0]
