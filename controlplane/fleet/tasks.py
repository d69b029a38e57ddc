"""The fleet's periodic work. Each run looks at the present state; running twice, late or never is harmless."""

from __future__ import annotations

import logging

from django.db import transaction
from django.utils import timezone

from controlplane.celery import app
from controlplane.fleet import brake, broker
from controlplane.fleet.models import Node
from controlplane.fleet.publish import publish
from controlplane.fleet.services import advance_all, prefetch, qualify_due

logger = logging.getLogger(__name__)


@app.task(name="fleet.sweep", ignore_result=True)
def sweep() -> None:
    """Publish every node, so that an edit by hand in the database also arrives; and the broker's users, which it
    forgets when it restarts."""
    broker.apply_acls()
    for node_id in Node.objects.filter(revoked=False).order_by("pk").values_list("pk", flat=True):
        with transaction.atomic():
            node = Node.objects.select_for_update().filter(pk=node_id).first()
            if node and publish(node):
                logger.info("the sweep found unpublished changes of %s: generation %s", node.name, node.generation)


@app.task(name="fleet.advance", ignore_result=True)
def advance() -> None:
    """Carry changes on. Reports and gateways do so too, and sooner; this is for when neither comes."""
    advance_all()


@app.task(name="fleet.watch", ignore_result=True)
def watch() -> None:
    """Whether many nodes fell silent together."""
    brake.look()


@app.task(name="fleet.qualify", ignore_result=True)
def qualify() -> None:
    """Measure GPUs that nothing is assigned to, where they were last measured too long ago."""
    if asked := qualify_due():
        logger.info("%d GPUs are to be measured again", asked)


@app.task(name="fleet.prefetch", ignore_result=True)
def fetch_ahead() -> None:
    """Have the weights of pooled models that are likely to be asked for lie where they can be woken."""
    if changed := prefetch(timezone.now()):
        logger.info("%d nodes are to hold other weights, by forecast", changed)
