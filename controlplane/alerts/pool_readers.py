"""What the rules about the pool read: models that wait for a slot, and models that cannot be woken."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.alerts.scene import Fact, Scene, Subject, Watch
from controlplane.fleet.models import Activation
from controlplane.fleet.services.waking import FAILED_WITHIN


def pool_short(scene: Scene, watch: Watch) -> Iterator[Fact]:
    """Of each model that waits for a slot: since when."""
    waiting = Activation.objects.filter(state=Activation.State.WAITING)
    for pk, name, asked_at, reason in waiting.values_list("deployment", "deployment__name", "asked_at", "reason"):
        age = (scene.now - asked_at).total_seconds()
        if watch.limits.is_near(age):
            yield Fact(_subject(pk, name), age, f"It has waited for {age:.0f} s: {reason}.")


def activation_failing(scene: Scene, watch: Watch) -> Iterator[Fact]:
    """Of each model whose last starts failed: how many in a row, and the last reason."""
    told = (Activation.State.READY, Activation.State.FAILED)
    ended = Activation.objects.filter(state__in=told, ended_at__gt=scene.now - FAILED_WITHIN).order_by(
        "-ended_at", "-pk"
    )
    failures: dict[int, tuple[str, int, str]] = {}
    well: set[int] = set()
    for pk, name, state, message in ended.values_list("deployment", "deployment__name", "state", "message"):
        if state == Activation.State.READY:
            well.add(pk)
        elif pk not in well:
            _, count, last = failures.get(pk, (name, 0, message))
            failures[pk] = (name, count + 1, last)
    for pk, (name, count, last) in failures.items():
        if watch.limits.is_near(float(count)):
            yield Fact(_subject(pk, name), float(count), f"{count} starts in a row failed; the last one: {last}.")


def _subject(pk: int, name: str) -> Subject:
    return Subject("deployment", pk, name, None, {"deployment": name})
