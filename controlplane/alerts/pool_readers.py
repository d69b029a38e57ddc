"""What the rules about the pool read: slots that are wanted and not there, models that wait for one, and models that
cannot be woken."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.alerts.scene import Fact, Scene, Subject, Watch
from controlplane.domain import pool_sizes
from controlplane.fleet import pool_view
from controlplane.fleet.models import Activation, Deployment, PoolAim
from controlplane.fleet.pool_view import Place
from controlplane.fleet.services import failures

# In use by a pooled model, or free for one; one that is lent, somebody else's or out of order is neither.
HELD = {Place.FREE, Place.STARTING, Place.ACTIVE, Place.IDLE, Place.UNKNOWN}


def pool_short(scene: Scene, watch: Watch) -> Iterator[Fact]:
    """How many slots are wanted and not held, of each size where the planner tells sizes apart. Unknown while it does
    not say how many; nothing where no model is pooled."""
    if not Deployment.objects.filter(mode=Deployment.Mode.POOLED).exists():
        return
    subject, aim = Subject("pool", 1, "the pool", None, {}), PoolAim.objects.first()
    if aim is None or aim.slots is None:
        yield Fact(subject, None, "")
        return
    held = [len(slot.gpus) for slot in pool_view.look(scene.now).slots if slot.place in HELD]
    wanted = {int(gpus): count for gpus, count in aim.by_gpus.items()}
    short = pool_sizes.short(held, wanted).total() if wanted else aim.slots - len(held)
    if watch.limits.is_near(float(short)):
        words = f"{aim.slots} slots are to be held" + (f" ({aim.sizes})" if aim.sizes else "")
        yield Fact(subject, float(short), f"{words}, {len(held)} are there in use or free: {aim.reason}.")


def pool_waiting(scene: Scene, watch: Watch) -> Iterator[Fact]:
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
