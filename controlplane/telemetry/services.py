"""Takes what a node reported: its latest figures go to Valkey at once, its windows to the database by the recorder."""

from __future__ import annotations

from datetime import datetime

from django.conf import settings

from controlplane.fleet.models import Node
from controlplane.telemetry import latest, valkey
from controlplane.telemetry.ingest import Ingest
from controlplane.telemetry.outbox import Outbox
from workers.contract import NodeReport

ingest = Ingest(settings.SAMPLE_EVERY_S)
outbox = Outbox(lambda: ingest.pop_latest())  # noqa: PLW0108 - of whatever ingest is then; works while the web process does


def take(node: Node, report: NodeReport, now: datetime) -> None:
    """Touches no database and never fails for want of Valkey. A repeated or late report changes nothing."""
    if outbox.is_running:
        take_soon(node.pk, report, now.timestamp())
        return
    figures = ingest.accept(node.pk, report, now.timestamp())
    try:
        latest.keep(*([figures] if figures else []))
    except valkey.Unreachable:
        return  # told once by valkey.connection; the windows go on, and the live view shows their rows


def take_soon(node: int, report: NodeReport, at: float) -> None:
    """As `take`, a moment later, with what other nodes say. Never waits."""
    ingest.put(node, report, at)
