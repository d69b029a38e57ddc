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
outbox = Outbox()  # works while the web process does


def take(node: Node, report: NodeReport, now: datetime) -> None:
    """Touches no database and never fails for want of Valkey. A repeated or late report changes nothing."""
    figures = ingest.accept(node.pk, report, now.timestamp())
    if figures is None:
        return
    if outbox.is_running:
        outbox.put(figures)
        return
    try:
        latest.keep(figures)
    except valkey.Unreachable:
        return  # told once by valkey.connection; the windows go on, and the live view shows their rows


def take_soon(node: int, report: NodeReport, at: float) -> None:
    """As `take`, with Valkey told a moment later, with what other nodes say. Never waits."""
    figures = ingest.accept(node, report, at)
    if figures is not None:
        outbox.put(figures)
