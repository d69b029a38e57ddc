"""Whatever happens to pairs in the pool, there is never half of one for long, nor a slot twice."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from controlplane.fleet import pool_use, services, verified
from controlplane.fleet.errors import FleetError
from controlplane.fleet.models import Activation, Gpu, Node, Partition
from controlplane.fleet.services import pool
from controlplane.fleet.services.waking import Ask, State, wake
from tests.factories import make_deployment, make_node, make_ready
from tests.fleet import test_pairs
from tests.fleet.test_pairs import ADMIN, HALVES, held_by, pair, pooled, slot

pytestmark = pytest.mark.django_db
_gateway_lives, node = test_pairs._gateway_lives, test_pairs.node


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_there_is_never_half_a_pair_for_long_nor_a_slot_twice(
    seed: int, settings: pytest.FixtureRequest
) -> None:
    settings.POOL_MIN_RESIDENCE_S = 5.0
    settings.BRAKE_SHARE = 1.0
    Walk(random.Random(seed)).run(90)


class Walk:
    """Models are asked for, engines become ready or end, nodes and GPUs go and come back, people meddle."""

    def __init__(self, chance: random.Random) -> None:
        self.chance, self.now = chance, timezone.now()
        self.nodes = [make_node(f"n{number}") for number in range(3)]
        for node in self.nodes:
            for _ in range(3):
                slot(node)
        self.names = [pair(f"pair-{number}").name for number in range(3)]
        self.names += [pooled(f"one-{number}").name for number in range(3)]
        self.mine = make_deployment("mine")
        self.deeds = [self.ask, self.ask, self.ask, self.ready, self.ready, self.sweep, self.sweep, self.crash,
                      self.hang, self.silence, self.lose, self.release, self.take, self.use]  # fmt: skip

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.now += timedelta(seconds=self.chance.choice([0.5, 2, 2, 20, 70]))
            verified.beat("gw:1", "", self.now)
            Node.objects.exclude(labels={"silent": "1"}).update(last_seen=self.now)
            self.chance.choice(self.deeds)()
            self.check()
        self.calm()

    def calm(self) -> None:
        """Everything is well again, and nobody does anything."""
        Node.objects.update(last_seen=self.now, labels={})
        Gpu.objects.update(health="ok")
        for _ in range(3):
            self.now += timedelta(seconds=40)
            verified.beat("gw:1", "", self.now)
            Node.objects.update(last_seen=self.now)
            for row in Partition.objects.exclude(deployment=None):
                make_ready(row, restarts=0, phase_since=self.now - timedelta(seconds=30))
            self.sweep()
        for name in self.names[:3]:
            assert sorted(held_by(name)) in ([], HALVES)
        assert not Activation.objects.filter(state="starting").exists()

    def check(self) -> None:
        """No half twice; what nodes are told is what rows say."""
        pairs = Partition.objects.filter(deployment__name__startswith="pair")
        held = list(pairs.values_list("deployment__name", "role"))
        assert len(held) == len(set(held))
        for node in Node.objects.all():
            there = {row.pk: row.role for row in node.partitions.exclude(deployment=None)}
            told = {one["partition"]: one["role"] for one in (node.spec or {"replicas": []})["replicas"]}
            assert there == told

    def ask(self) -> None:
        name = self.chance.choice(self.names)
        standing = wake({name: Ask()}, now=self.now)[name]
        if standing.state in (State.STARTING, State.READY) and name.startswith("pair"):
            assert sorted(held_by(name)) == HALVES

    def sweep(self) -> None:
        pool.sweep(self.now)

    def use(self) -> None:
        name, count = self.chance.choice(self.names), self.chance.choice([0, 0, 1])
        pool_use.write("gw:1", [(name, count, self.now.timestamp())])

    def some(self) -> Partition | None:
        rows = list(Partition.objects.exclude(deployment=None).select_related("node"))
        return self.chance.choice(rows) if rows else None

    def ready(self) -> None:
        for row in Partition.objects.exclude(deployment=None):
            if self.chance.random() < 0.7:
                make_ready(row, restarts=0, phase_since=self.now - timedelta(seconds=self.chance.choice([1, 60])))

    def crash(self) -> None:
        if (row := self.some()) is not None:
            make_ready(row, phase="exited", restarts=self.chance.choice([1, 3]), phase_since=self.now)

    def hang(self) -> None:
        if (row := self.some()) is not None:
            make_ready(row, phase="starting", phase_since=self.now - timedelta(hours=self.chance.choice([0, 2])))

    def silence(self) -> None:
        node = self.chance.choice(self.nodes)
        is_silent = Node.objects.get(pk=node.pk).labels != {}
        Node.objects.filter(pk=node.pk).update(labels={} if is_silent else {"silent": "1"})

    def lose(self) -> None:
        gpu = self.chance.choice(list(Gpu.objects.all()))
        Gpu.objects.filter(pk=gpu.pk).update(health="ok" if gpu.health == "lost" else "lost")

    def release(self) -> None:
        if (row := self.some()) is not None:
            services.release(row.pk, actor=ADMIN)

    def take(self) -> None:
        row = self.chance.choice(list(Partition.objects.all()))
        try:
            with transaction.atomic():
                services.assign(row.pk, deployment_id=self.mine.pk, role="aggregated", actor=ADMIN)
        except FleetError:
            return
