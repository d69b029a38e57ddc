"""What the rules about the pool read: models that wait for a slot, and models that cannot be woken."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.alerts.scene import Fact, Scene, Subject, Watch
from controlplane.fleet.models import Activation
from controlplane.fleet.services import failures


def pool_short(scene: Scene, watch: Watch) -> Iterator[Fact]:
    """Of each model that waits for a slot: since when. A dedicated one has engines of its own."""
    waiting = Activation.objects.filter(state=Activation.State.WAITING, cause=Activation.Cause.REQUEST)
    for pk, name, asked_at, reason in waiting.values_list("deployment", "deployment__name", "asked_at", "reason"):
        age = (scene.now - asked_at).total_seconds()
        if watch.limits.is_near(age):
            yield Fact(_subject(pk, name), age, f"It has waited for {age:.0f} s: {reason}.")


def activation_failing(scene: Scene, watch: Watch) -> Iterator[Fact]:
    """Of each model whose last starts failed, or whose engine could not be kept up: how often in a row, and the last
    reason."""
    failed: dict[int, tuple[str, int, str]] = {}
    well: set[int] = set()
    for row in failures.over(scene.now).select_related("deployment"):
        if not failures.is_failure(row):
            well.add(row.deployment_id)
        elif row.deployment_id not in well:
            name, count, last = failed.get(row.deployment_id, (row.deployment.name, 0, row.message))
            failed[row.deployment_id] = (name, count + 1, last)
    for pk, (name, count, last) in failed.items():
        if watch.limits.is_near(float(count)):
            yield Fact(_subject(pk, name), float(count), f"{count} starts in a row failed; the last one: {last}.")


def _subject(pk: int, name: str) -> Subject:
    return Subject("deployment", pk, name, None, {"deployment": name})
