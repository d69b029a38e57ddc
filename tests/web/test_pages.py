"""What the pages show: state, unknowns, next steps, the trail."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from django.test import Client, RequestFactory
from django.urls import get_resolver, reverse
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor, record
from controlplane.fleet.models import Deployment, Gpu, Node, Partition
from controlplane.scaling import policy
from controlplane.web.forms import indexes
from controlplane.web.templatetags import present
from tests import factories
from tests.web.conftest import Clients


@pytest.mark.parametrize(
    ("name", "step"),
    [("models", "Register a model"), ("nodes", "Add a node"), ("fleet", "Add a node"), ("keys", "Create a key")],
)
def test_an_empty_page_says_the_next_step(name: str, step: str, as_role: Clients) -> None:
    assert step in as_role("admin").get(reverse(f"web:{name}")).content.decode()


def test_every_page_that_the_frame_links_is_there(as_role: Clients, fleet: SimpleNamespace) -> None:
    viewer = as_role("viewer")
    side = viewer.get("/").content.decode().split('<nav aria-label="Main">')[1].split("</nav>")[0]
    links = re.findall(r'<a (?:class="[^"]*" )?href="([^"]+)"', side)
    assert len(links) >= 9 and {link: viewer.get(link).status_code for link in links} == dict.fromkeys(links, 200)


def test_a_silent_node_stays_in_the_list_and_is_called_silent(as_role: Clients, fleet: SimpleNamespace) -> None:
    Node.objects.filter(pk=fleet.node.pk).update(last_seen=timezone.now() - timezone.timedelta(minutes=5))
    page = as_role("viewer").get(reverse("web:nodes")).content.decode()
    assert "gpu-1" in page
    assert ">silent<" in page
    assert "5 min ago" in page


def test_a_crash_looping_engine_is_told_with_its_last_words(as_role: Clients, fleet: SimpleNamespace) -> None:
    Partition.objects.filter(pk=fleet.decode.pk).update(phase="exited", restarts=3, message="out of memory")
    page = as_role("viewer").get(reverse("web:node-parts", args=[fleet.node.pk])).content.decode()
    assert ">crash-looping<" in page
    assert "out of memory" in page
    assert "3 starts in a row did not last" in page


def test_lists_tell_what_does_not_serve(as_role: Clients, fleet: SimpleNamespace) -> None:
    viewer = as_role("viewer")
    models = reverse("web:models")
    assert "serve" not in viewer.get(models).content.decode().split("<main")[1].split("</table>")[0].split("<tbody>")[1]
    Partition.objects.filter(pk=fleet.decode.pk).update(phase="exited", restarts=3)
    assert "1 of 2 serves" in viewer.get(models).content.decode()
    assert "1 crash-looping" in viewer.get(reverse("web:nodes")).content.decode()
    Gpu.objects.filter(pk=fleet.node.gpus.first().pk).update(health="lost")
    assert "1 unfit" in viewer.get(reverse("web:nodes")).content.decode()
    Node.objects.update(last_seen=timezone.now() - timezone.timedelta(minutes=5))
    assert "none serves" in viewer.get(models).content.decode()


def test_a_pooled_model_that_is_only_being_woken_is_no_fault(as_role: Clients, fleet: SimpleNamespace) -> None:
    viewer, models = as_role("viewer"), reverse("web:models")
    Deployment.objects.update(mode="pooled")
    Partition.objects.filter(deployment__isnull=False).update(phase="starting", restarts=0)
    page = viewer.get(models).content.decode()
    assert "being woken" in page and "none serves" not in page
    Partition.objects.filter(deployment__isnull=False).update(phase="exited", restarts=3)
    page = viewer.get(models).content.decode()
    assert "none serves" in page and "being woken" not in page


def test_the_trail_is_filtered_and_paged(as_role: Clients, db: None) -> None:
    node = factories.make_node("gpu-1")
    for number in range(60):
        record(Actor(name="olga", source="web"), "cordon", node, reason=f"reason-{number}.")
    record(Actor.agent("gpu-1"), "engine-exited", node, detail="Killed by the kernel")
    client = as_role("viewer")
    first = client.get(reverse("web:activity")).content.decode()
    assert "reason-59." in first
    assert "reason-5." not in first
    second = client.get(reverse("web:activity"), {"page": 2}).content.decode()
    assert "reason-5." in second
    agents = client.get(reverse("web:activity"), {"source": "agent"}).content.decode()
    assert "Killed by the kernel" in agents
    assert "reason-59." not in agents
    nothing = client.get(reverse("web:activity"), {"q": "nothing like it"}).content.decode()
    assert "Widen the filter" in nothing


def test_what_people_write_is_shown_and_never_run(as_role: Clients, db: None) -> None:
    node = factories.make_node("gpu-1")
    record(Actor(name="<script>alert(1)</script>", source="web"), "cordon", node, reason='<img src=x onerror="x">')
    for page in ("activity", "fleet", "recent"):
        text = as_role("viewer").get(reverse(f"web:{page}")).content.decode()
        assert "<script>alert" not in text
        assert "<img" not in text
        assert "&lt;img" in text


def test_the_palette_offers_what_the_role_allows(as_role: Clients, fleet: SimpleNamespace) -> None:
    def labels(role: str) -> set[str]:
        return {item["label"] for item in as_role(role).get(reverse("web:palette")).json()["items"]}

    assert {"gpu-1", "chat", "gpu-1/p0"} <= labels("viewer")
    assert not {"Cordon gpu-1", "Add a node"} & labels("viewer")
    assert "Cordon gpu-1" in labels("operator")
    assert {"Add a node", "Create an API key"} <= labels("admin")


def test_unknown_things_are_not_found_in_our_own_words(as_role: Clients) -> None:
    answer = as_role("viewer").get(reverse("web:node", args=[9999]))
    assert answer.status_code == 404
    assert "There is no node with the number 9999" in answer.content.decode()
    plain = as_role("viewer").get("/no/such/page")
    assert plain.status_code == 404
    assert "There is no page at /no/such/page" in plain.content.decode()


def test_a_foreign_host_name_is_refused_in_our_own_words(client: Client) -> None:
    answer = client.get("/", HTTP_HOST="elsewhere.example")
    assert answer.status_code == 400
    assert "FOREBAY_HOSTS says which" in answer.content.decode()


def test_a_form_without_its_token_is_refused_in_our_own_words(as_role: Clients, fleet: SimpleNamespace) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(factories.make_user("operator"), backend="django.contrib.auth.backends.ModelBackend")
    answer = client.post(reverse("web:node-cordon", args=[fleet.node.pk]))
    assert answer.status_code == 403
    assert "This form has expired" in answer.content.decode()
    fleet.node.refresh_from_db()
    assert fleet.node.schedulable


def test_a_way_back_leads_nowhere_else(as_role: Clients, fleet: SimpleNamespace) -> None:
    form = {"reason": "x", "next": "https://elsewhere.example/"}
    answer = as_role("operator").post(reverse("web:node-cordon", args=[fleet.node.pk]), form)
    assert answer["Location"] == reverse("web:node", args=[fleet.node.pk])


def test_an_event_is_a_sentence() -> None:
    event = AuditEvent(
        source="web",
        actor_name="olga",
        verb="assign",
        subject_type="partition",
        subject_id=7,
        subject_name="gpu-1/p0",
        before={"deployment": None, "role": None},
        after={"deployment": "chat", "role": "prefill"},
    )
    assert present.said(event.verb) == "assigned"
    assert present.change_words(event) == "idle to chat prefill"
    assert present.subject_url(event) == "/partitions/7/"


def test_values_have_units_and_unknowns_a_dash() -> None:
    assert present.binary(None) == present.UNKNOWN
    assert present.binary(80 * 2**30) == "80.0 GiB"
    assert present.binary(512) == "512 B"
    assert present.figure(1234, "ms") == "1,234 ms"
    assert present.figure(None, "ms") == present.UNKNOWN
    assert present.span([0, 1, 2, 5]) == "0-2, 5"
    assert indexes("0-2, 5") == [0, 1, 2, 5]


def test_measuring_an_engine_is_offered_to_those_who_may(as_role: Clients, db: None) -> None:
    partition = factories.make_partition(deployment=factories.make_deployment("chat"), role="aggregated")
    address = reverse("web:deployment-speed", args=[partition.deployment.pk])
    page = as_role("operator").get(address).content.decode()
    assert f"{partition}, aggregated" in page and 'id="measure"' in page and 'data-model="model-' in page
    assert 'id="measure"' not in as_role("viewer").get(address).content.decode()


def test_sizes_are_asked_for_as_sure_of_lengths_as_scaling_is(as_role: Clients, db: None) -> None:
    address = reverse("web:deployment-speed", args=[factories.make_deployment("chat").pk])
    assert '<option value="0.95" selected>95%</option>' in as_role("viewer").get(address).content.decode()
    policy.change(actor=Actor.system("anna"), lengths_level=0.97)
    page = as_role("viewer").get(address).content.decode()
    assert '<option value="0.97" selected>97%</option>' in page and '<option value="0.95">95%</option>' in page


def test_the_page_of_an_error_names_the_request_for_the_log(rf: RequestFactory) -> None:
    request = rf.get("/nodes/")
    request.request_id = "4f1c9a"
    answer = get_resolver().resolve_error_handler(500)(request)
    assert (answer.status_code, "4f1c9a" in answer.content.decode()) == (500, True)
    bare = get_resolver().resolve_error_handler(500)(rf.get("/"))  # before the id was given
    assert "log tells more." in bare.content.decode()


def test_the_api_docs_follow_the_theme(as_role: Clients) -> None:
    page = as_role("viewer").get(reverse("api:docs")).content.decode()
    assert "js/theme" in page and "js/apidocs" in page and "css/apidocs" in page
