"""The fleet's side of waking, for a gateway under test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.fleet.services.waking import Standing, State

STARTING = Standing(State.STARTING, expected_s=4.2)


@dataclass
class Fleet:
    """Answers the gateway as the fleet's rows would, and remembers what it was asked."""

    standing: Standing = STARTING
    asked: list[dict[str, int]] = field(default_factory=list)
    down: bool = False

    async def wake(self, held: Mapping[str, int]) -> Mapping[str, Standing]:
        self.asked.append(dict(held))
        if self.down:
            raise OSError("no database")
        return dict.fromkeys(held, self.standing)
