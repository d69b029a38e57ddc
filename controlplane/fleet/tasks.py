"""The fleet's periodic work. Each run looks at the present state; running twice, late or never is harmless."""

from __future__ import annotations

import logging

from django.db import transaction

from controlplane.celery import app
from controlplane.fleet import broker
from controlplane.fleet.models import Node
from controlplane.fleet.publish import publish

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
