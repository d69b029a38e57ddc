"""Takes pictures of the fleet map at 1, 12, 110 and 1,000 nodes: 1440 and 380 px, dark and light.

    python -m tests.browser.mapshots FOLDER [--counts 1,12,110,1000]

The fleet in them is simulated, and says so on the page. Some of it is in trouble, so that one sees how that looks.
"""

from __future__ import annotations

import argparse
from datetime import timedelta

from tests.browser.pictures import Shooter, program


def shoot(shooter: Shooter, options: argparse.Namespace) -> None:
    import django

    django.setup()
    from django.utils.timezone import now

    from bench import _rows
    from controlplane.fleet.models import Node

    for count in map(int, options.counts.split(",")):
        there = Node.objects.count()
        _rows.make(count - there, 1 if count == 1 else 8, first=there)
        nodes = list(Node.objects.defer("spec").order_by("name"))
        if count >= 12:
            trouble(nodes)
        heard = [node for node in nodes if node.pk % 29 != 5]
        Node.objects.exclude(pk__in=[node.pk for node in heard]).update(last_seen=now() - timedelta(minutes=3))
        with _rows.Reports(heard):
            shooter.take(f"map-{count}", "/", full=count < 1000, settle_s=6 if count == 1000 else 4)
            if count in (12, 110):
                shooter.take(f"map-{count}-grouped", "/?group=model&fill=kv", full=count < 1000, settle_s=3)


def trouble(nodes: list) -> None:
    from controlplane.fleet.models import Gpu, Node, Partition

    pks = [node.pk for node in nodes]
    Node.objects.filter(pk__in=[pk for pk in pks if pk % 17 == 4]).update(schedulable=False)
    Node.objects.filter(pk__in=[pk for pk in pks if pk % 19 == 6]).update(draining=True)
    Gpu.objects.filter(node__in=[pk for pk in pks if pk % 13 == 3], index=5).update(
        health="lost", health_detail="Xid 79"
    )
    of = Partition.objects.filter(deployment__isnull=False)
    of.filter(node__in=[pk for pk in pks if pk % 19 == 6], name="p0").update(phase="draining")
    of.filter(node__in=[pk for pk in pks if pk % 11 == 7], name="p1").update(phase="exited", restarts=4)
    of.filter(node__in=[pk for pk in pks if pk % 23 == 8], name="p2").update(phase="starting")


if __name__ == "__main__":
    program(__doc__, shoot, counts="1,12,110,1000")
