"""How long a deployment counts as active in a slot after its last request there: as it says itself, else as was learned
of it, else as the planner has it for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings

from controlplane.domain.keepalive import Learned
from controlplane.fleet import pool_habits
from controlplane.fleet.models import Deployment, PoolAim

OWN, USUAL = "as the deployment has it", "as the capacity policy has it"
NONE = "the deployment has no slots of the pool"


@dataclass(frozen=True, slots=True)
class Keeps:
    usual_s: float
    learned: Mapping[str, Learned]

    def of(self, deployment: Deployment) -> Learned:
        """With the reason, in words for people. A dedicated one only has what overflows to a slot: of that nothing is
        learned, and a slot that it may have no longer is not kept at all."""
        is_dedicated = deployment.mode == Deployment.Mode.DEDICATED
        if is_dedicated and not deployment.overflow:
            return Learned(0.0, NONE)
        if deployment.keep_alive_s is not None:
            return Learned(float(deployment.keep_alive_s), OWN)
        if is_dedicated:
            return Learned(self.usual_s, USUAL)
        return self.learned.get(deployment.name, Learned(self.usual_s, USUAL))


def read(now: datetime) -> Keeps:
    told = PoolAim.objects.values_list("keep_alive_s", flat=True).first()
    usual_s = float(settings.CAPACITY_KEEP_ALIVE_S if told is None else told)  # until the planner spoke
    return Keeps(usual_s, pool_habits.keep_alives(now) if settings.POOL_LEARN_KEEP_ALIVE else {})
