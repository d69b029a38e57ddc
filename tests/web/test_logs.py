"""The page of all logs, and an engine's last words where they are missed. No broker: the page works without."""

from __future__ import annotations

from types import SimpleNamespace

from django.utils.html import escape

from controlplane.fleet.models import Partition
from tests.factories import make_node, make_partition
from tests.fleet.reporting import status_of, tell
from tests.web.conftest import Clients
from workers.contract import Exit

WORDS = "Traceback\ntorch.OutOfMemoryError: <CUDA> out of memory"


def test_who_sees_which_logs(as_role: Clients, fleet: SimpleNamespace) -> None:
    viewer, operator = (as_role(role).get("/logs/").content.decode() for role in ("viewer", "operator"))
    assert "gpu-1/" in viewer and "Agents" not in viewer and "Control plane" not in viewer
    assert "The broker does not answer" in operator
    node = Partition.objects.exclude(deployment=None)[0].node_id
    assert f'data-url="/api/v1/nodes/{node}/logs"' in as_role("operator").get(f"/logs/?of=node:{node}").content.decode()
    assert (
        f'data-url="/api/v1/nodes/{node}/logs"' not in as_role("viewer").get(f"/logs/?of=node:{node}").content.decode()
    )


def test_logs_are_found_by_any_name_of_theirs(as_role: Clients, fleet: SimpleNamespace) -> None:
    other = make_partition(make_node("elsewhere"), role="decode", name="p7")
    found = as_role("viewer").get("/logs/?q=elsewhere/p7").content.decode()
    assert f"/api/v1/partitions/{other.pk}/logs" in found and "gpu-1/" not in found
    for odd in ("partition:0", "partition:x", "process:none", "'", "node:99999999999999999999"):
        assert as_role("operator").get("/logs/", {"of": odd}).status_code == 200


def test_the_last_words_of_an_engine_stand_where_it_is_missed(as_role: Clients, fleet: SimpleNamespace) -> None:
    partition = Partition.objects.exclude(deployment=None).select_related("node", "deployment")[0]
    tell(partition.node, replicas=(status_of(partition, "ready"),))
    gone = status_of(partition, "exited", pid=0, restarts=1, last_exit=Exit(code=1, ago_s=0.1, log_tail=WORDS))
    tell(partition.node, replicas=(gone,))
    client = as_role("viewer")
    for page in (f"/nodes/{partition.node_id}/", f"/deployments/{partition.deployment_id}/", "/activity/"):
        assert escape(WORDS) in client.get(page).content.decode(), page
    tell(partition.node, replicas=(status_of(partition, "ready"),))
    replicas = client.get(f"/deployments/{partition.deployment_id}/replicas").content.decode()
    assert escape(WORDS) not in replicas
