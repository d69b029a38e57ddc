"""How many slots are held for pooled models, and which of the others may be lent to a dedicated deployment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from django.conf import settings

from controlplane.domain import lending as rules
from controlplane.domain.pool import Slot
from controlplane.fleet.models import PoolAim

AIM = 1


def to_keep_free(views: Sequence[Slot]) -> tuple[dict[int, int], int]:
    """(by the GPUs of a slot, of any): slots that the planner wants held less those with an active model, and no fewer
    than configured. By size only where the planner tells sizes apart. At most POOL_EMPTIED are emptied of each ahead of
    requests: whoever is idle in the others leaves when the slot is needed, and answers at once if asked again."""
    slots, by_gpus = _wanted()
    there = [view for view in views if view.resident is not None and view.resident.is_kept and not view.resident.lent]
    active = Counter(view.gpus for view in there)
    most = settings.POOL_EMPTIED
    least = max(settings.POOL_FREE, min(most, (slots or 0) - active.total()))
    return {int(gpus): min(most, max(0, count - active[int(gpus)])) for gpus, count in by_gpus.items()}, least


def lendable(own: Sequence[Slot]) -> set[int]:
    """Partitions. `own`: the pool's slots but for those that are lent already, or somebody else's."""
    free, least = to_keep_free(own)
    slots, by_gpus = _wanted()
    wanted = {int(gpus): count for gpus, count in by_gpus.items()} or {rules.ANY: slots or 0}
    return rules.lendable(own, rules.Held(wanted, free, least))


def take_turns() -> None:
    """Whoever lends waits for whoever does just now, so that no two take what one may. In a transaction; while the
    planner has not spoken there is no row to wait at, and two at once could leave one slot less empty."""
    PoolAim.objects.select_for_update().filter(pk=AIM).first()


def _wanted() -> tuple[int | None, dict[str, int]]:
    found = PoolAim.objects.filter(pk=AIM).values_list("slots", "by_gpus").first()
    return found or (0, {})
