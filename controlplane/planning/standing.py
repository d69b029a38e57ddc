"""What any number of slots would come to, by the habits of the last week: what-if answers are read off a curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import numpy as np

from controlplane.domain.forecast.activity import Floats, Requests, runs
from controlplane.domain.forecast.binomial import law
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.domain.knapsack import Loads, cold, law_of_room
from controlplane.domain.reservation import aegaeon
from controlplane.planning import history as past
from controlplane.planning import policy, slot_sizes
from controlplane.planning.history import Reading
from controlplane.planning.models import Standing
from controlplane.planning.slot_sizes import Sizes

KEEP_ALIVES_S = (60, 300, 900, 3600)
DAYS = 7.0
FIRST_S = 600.0  # on record before the first curve, and between two until AGAIN_S are on record
AGAIN_S = 3600.0
POINTS = 48  # of a curve
LEAST_COLD = 1e-4  # what a curve goes down to


@dataclass(frozen=True, slots=True)
class OfSize:
    """Of the models that take slots of so many GPUs; `assumed`: those of them of which that is not known. Counts but
    those of models are of slots: one that is woken as a pair may take two of a size."""

    gpus: int
    models: int
    assumed: int
    expected: float  # E[slots in use]
    activations_per_hour: float
    curve: list[list[float]]  # as Standing's


def refresh(now: float, reading: Reading | None = None) -> int:
    """Make the curves anew, once an hour, also that of the keep-alive in use; how many. In the first hour on record
    each ten minutes, of those keep-alives that are no longer than the record: of others it cannot tell who rests.
    `reading`: of this moment, where others have read."""
    newest = Standing.objects.order_by("at").values_list("at", flat=True).first()
    begin = past.first()
    if begin is None or now - begin < FIRST_S:
        return 0
    keep_alives_s = {*KEEP_ALIVES_S, policy.current().keep_alive_s}
    again_s = AGAIN_S
    if now - begin < AGAIN_S:
        again_s, keep_alives_s = FIRST_S, {one for one in keep_alives_s if one <= now - begin}
    have = set(Standing.objects.values_list("keep_alive_s", flat=True))
    if newest is not None and now - newest.timestamp() < again_s and have >= keep_alives_s:
        return 0
    since = max(begin, now - DAYS * DAY_S)
    seconds = sum(end - start for start, end in past.recorded(since, now))
    requests = (reading or Reading(now)).requests(since)
    if seconds <= 0 or not len(requests.at):
        return 0
    sizes = slot_sizes.read()
    for keep_alive_s in keep_alives_s:
        found = _standing(requests, keep_alive_s, now, seconds, sizes)
        Standing.objects.update_or_create(keep_alive_s=keep_alive_s, defaults=found)
    Standing.objects.exclude(keep_alive_s__in=keep_alives_s).delete()
    return len(keep_alives_s)


def _standing(requests: Requests, keep_alive_s: float, now: float, seconds: float, sizes: Sizes) -> dict[str, object]:
    loads = loads_of(requests, keep_alive_s, now, seconds)
    per_s = np.bincount(requests.model, requests.number, minlength=len(requests.models)) / seconds
    return {
        "at": datetime.fromtimestamp(now, UTC),
        "days": seconds / DAY_S,
        "models_seen": len(requests.models),
        "expected": float(loads.chance.sum()),
        "aegaeon": aegaeon(per_s, keep_alive_s),
        "activations_per_hour": float(loads.activations_per_s.sum()) * 3600.0,
        "curve": curve(loads),
        "by_size": [asdict(one) for one in by_size(loads, requests.models, sizes)],
    }


def by_size(loads: Loads, models: Sequence[str], sizes: Sizes) -> list[OfSize]:
    """Each size has slots of its own; none where every slot is of one GPU."""
    found = []
    for gpus, places in sizes.split(models).items():
        which = list(places)
        mine = Loads(loads.enter[which], loads.stay_s[which], np.array(list(places.values()), np.int64))
        found.append(
            OfSize(
                gpus=gpus,
                models=len(places),
                assumed=sizes.assumed([models[place] for place in places]),
                expected=float(mine.chance @ mine.gpus),
                activations_per_hour=float(mine.activations_per_s.sum()) * 3600.0,
                curve=curve(mine),
            )
        )
    return found


def loads_of(requests: Requests, keep_alive_s: float, now: float, seconds: float) -> Loads:
    """Each model's pace over `seconds` of record, which end at `now`; a slot counts as one here, whatever its size."""
    active = runs(requests, keep_alive_s)
    count = active.count
    begun = np.bincount(active.model, minlength=count).astype(np.float64)
    on = np.bincount(active.model, np.minimum(active.end, now) - active.start, minlength=count)
    on = np.minimum(on, seconds)
    # One that was on all the while has no idle time to wake from: it is taken to rest a second in all.
    enter, stay = begun / np.maximum(seconds - on, 1.0), on / np.maximum(begun, 1.0)
    return Loads(enter, stay, np.ones(count, np.int64))


def curve(loads: Loads) -> list[list[float]]:
    """[slots, cold, idle] from half of what is expected to be active up to where hardly anything is cold."""
    active = law(loads.chance) if (loads.gpus == 1).all() else law_of_room(loads)
    idle = np.concatenate([[0.0], np.cumsum(np.cumsum(active))[:-1]])  # E[(slots - A)+]
    least, most = int(loads.chance @ loads.gpus // 2), len(active) - 1
    points: list[list[float]] = []
    for slots in _places(least, most, active):
        share = cold(loads, slots)
        points.append([slots, round(share, 6), round(float(idle[slots]), 3)])
        if share < LEAST_COLD:
            break
    return points


def _places(least: int, most: int, active: Floats) -> list[int]:
    """Whole numbers, closest where the law of the active number changes most."""
    top = min(most, int(np.searchsorted(np.cumsum(active), 1 - 1e-7)) + 2)
    return sorted({round(float(one)) for one in np.linspace(least, max(top, least), POINTS)})
