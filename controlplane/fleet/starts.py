"""How long engines took to start, by model and node: from the trail, which keeps every start that an agent measured."""

from __future__ import annotations

from statistics import median

from controlplane.audit.models import AuditEvent
from controlplane.fleet.models import Activation, Deployment, Node, Partition, RegisteredModel

RECENT = 5  # starts; what took long on last year's disk says little
LOOK_AT = 200  # of the node's starts, most recent first: a model not among them counts as not measured


def start_s(model: RegisteredModel, node: Node) -> float | None:
    """The median of the model's recent starts on the node, in seconds from process to first answer; None: never
    measured there."""
    return _usual_s(model, node, "engine-ready", "ready_after_s")


def wake_s(model: RegisteredModel, node: Node) -> float | None:
    """The same of its wakes from sleep."""
    return _usual_s(model, node, "engine-woke", "woken_after_s")


def _usual_s(model: RegisteredModel, node: Node, verb: str, figure: str) -> float | None:
    served = set(Deployment.objects.filter(model=model).values_list("name", flat=True))
    partitions = list(Partition.objects.filter(node=node).order_by().values_list("pk", flat=True))
    if not (served and partitions):
        return None
    events = AuditEvent.objects.filter(subject_type="partition", subject_id__in=partitions, verb=verb)
    facts = (after or {} for after in events.order_by("-id").values_list("after", flat=True)[:LOOK_AT])
    measured = [fact.get(figure) for fact in facts if fact.get("deployment") in served]
    recent = [seconds for seconds in measured if isinstance(seconds, int | float)][:RECENT]
    return median(recent) if recent else None


def woken_s(deployment: Deployment) -> float | None:
    """The median of how long it lately took from having a slot to being ready, wherever that was; None: never woken."""
    found = deployment.activations.filter(state=Activation.State.READY, placed_at__isnull=False).order_by("-id")
    times = found.values_list("placed_at", "ended_at")[:RECENT]
    return median((ended - placed).total_seconds() for placed, ended in times) if times else None
