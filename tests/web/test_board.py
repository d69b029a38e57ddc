"""The board's views: a draft is previewed, applied, refused, found stale; the same without a script and on a phone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.test import Client
from django.urls import reverse

from controlplane.audit.services import Actor
from controlplane.fleet import services, versions
from controlplane.fleet.models import Change, Partition
from tests.web.conftest import Clients, text

HTMX = {"HX-Request": "true"}


def move(partition: Partition, pair: SimpleNamespace, role: str) -> str:
    return f"{partition.pk}:{pair.deployment.pk}:{role}"


def apply(client: Client, moves: list[str], **fields: object) -> object:
    data = {"move": moves, "version": versions.current(), "reason": "TTFT is climbing"} | fields
    return client.post(reverse("web:board-apply"), data)


def test_the_board_has_a_lane_for_each_deployment_and_role(as_role: Clients, pair: SimpleNamespace) -> None:
    page = as_role("viewer").get(reverse("web:board")).content.decode()
    for role in ("prefill", "decode", "aggregated"):
        assert f'data-lane="{pair.deployment.pk}:{role}"' in page
    assert 'data-lane="idle"' in page


def test_a_viewer_sees_a_draft_and_no_control(as_role: Clients, pair: SimpleNamespace) -> None:
    address = f"{reverse('web:board')}?move={move(pair.decode, pair, 'prefill')}"
    page = as_role("viewer").get(address).content.decode()
    assert "gpu-1/p1" in page
    assert "data-apply" not in page
    assert "Move GPUs" not in page
    assert 'data-may=""' in page


def test_an_empty_fleet_says_the_next_step(as_role: Clients) -> None:
    assert "There is no deployment yet" in as_role("operator").get(reverse("web:board")).content.decode()


def test_the_preview_says_what_a_draft_would_do(as_role: Clients, pair: SimpleNamespace) -> None:
    words = [move(pair.decode, pair, "prefill"), f"{pair.idle.pk}:{pair.deployment.pk}:decode"]
    answer = as_role("operator").get(reverse("web:board-preview"), {"move": words})
    page = text(answer)
    assert "2 moves" in page
    assert "gpu-1/p1" in page
    assert "2 → 3" in page
    assert f"planned on version {versions.current()}" in page
    assert "Apply 2 moves" in page


def test_the_preview_keeps_what_was_typed(as_role: Clients, pair: SimpleNamespace) -> None:
    asked = {"move": move(pair.decode, pair, "prefill"), "reason": 'half "typed"'}
    page = as_role("operator").get(reverse("web:board-preview"), asked).content.decode()
    assert 'value="half &quot;typed&quot;"' in page


def test_a_part_of_the_address_that_is_no_move_is_told(as_role: Clients, pair: SimpleNamespace) -> None:
    page = text(as_role("operator").get(reverse("web:board"), {"move": ["1:2:worker", "<b>"]}))
    assert "Part of the address is no move" in page
    assert "1:2:worker" in page
    assert "&lt;b&gt;" in page


def test_a_draft_of_a_partition_that_is_gone_says_so(as_role: Clients, pair: SimpleNamespace) -> None:
    answer = as_role("operator").get(reverse("web:board"), {"move": "99999:idle"})
    assert answer.status_code == 200
    assert "99999" in text(answer)
    assert "data-apply" not in answer.content.decode()


def test_applying_begins_the_change_and_leads_to_its_page(as_role: Clients, pair: SimpleNamespace) -> None:
    answer = apply(as_role("operator"), [move(pair.decode, pair, "prefill")])
    change = Change.objects.get()
    assert answer["Location"] == reverse("web:change", args=[change.pk])
    assert change.reason == "TTFT is climbing"
    pair.decode.refresh_from_db()
    assert pair.decode.role == "prefill"


def test_the_board_stays_open_and_shows_the_progress(as_role: Clients, pair: SimpleNamespace) -> None:
    client = as_role("operator")
    data = {"move": [move(pair.decode, pair, "prefill")], "version": versions.current(), "reason": "why"}
    answer = client.post(reverse("web:board-apply"), data, headers=HTMX)
    change = Change.objects.get()
    assert answer["HX-Redirect"] == f"{reverse('web:board')}?change={change.pk}"
    page = client.get(answer["HX-Redirect"]).content.decode()
    assert f'id="progress-{change.pk}"' in page
    assert 'hx-trigger="every 1s"' in page


def test_nothing_is_applied_without_a_reason(as_role: Clients, pair: SimpleNamespace) -> None:
    answer = apply(as_role("operator"), [move(pair.decode, pair, "prefill")], reason=" ")
    assert answer.status_code == 422
    assert "always carries its reason" in text(answer)
    assert not Change.objects.exists()


def test_a_draft_without_moves_applies_nothing(as_role: Clients, pair: SimpleNamespace) -> None:
    assert apply(as_role("operator"), []).status_code == 422
    assert not Change.objects.exists()


def test_what_would_stop_serving_needs_its_name_typed_and_force(as_role: Clients, pair: SimpleNamespace) -> None:
    client = as_role("operator")
    moves = [f"{row.pk}:idle" for row in (pair.decode, pair.decode2)]
    page = text(client.get(reverse("web:board-preview"), {"move": moves}))
    assert "The rules advise against it" in page
    assert f"Type {pair.deployment.name} to confirm" in page
    for fields in ({}, {"force": "on"}, {"force": "on", "confirm": "chit"}, {"confirm": pair.deployment.name}):
        answer = apply(client, moves, **fields)
        assert answer.status_code in (409, 422), fields
        assert not Change.objects.exists()
    assert apply(client, moves, force="on", confirm=pair.deployment.name).status_code == 302
    assert Change.objects.get().force


def test_a_stale_plan_says_who_was_faster_and_keeps_the_draft(as_role: Clients, pair: SimpleNamespace) -> None:
    version = versions.current()
    olga = Actor(name="olga", source="web")
    services.cordon(pair.node.pk, actor=olga, reason="fans are loud")
    moves = [move(pair.decode, pair, "prefill")]
    answer = apply(as_role("operator"), moves, version=version)
    page = text(answer)
    assert answer.status_code == 409
    assert "Somebody was faster" in page
    assert "olga cordoned gpu-1" in page
    assert "fans are loud" in page
    assert f"move={moves[0]}" in answer.content.decode()
    assert not Change.objects.exists()


def test_the_board_gets_the_conflict_as_a_dialog(as_role: Clients, pair: SimpleNamespace) -> None:
    version = versions.current()
    services.cordon(pair.node.pk, actor=Actor(name="olga", source="web"))
    data = {"move": move(pair.decode, pair, "prefill"), "version": version, "reason": "why"}
    answer = as_role("operator").post(reverse("web:board-apply"), data, headers=HTMX)
    assert (answer.status_code, answer["X-Conflict"]) == (409, "stale-plan")
    assert "data-replan" in answer.content.decode()
    assert "data-discard" in answer.content.decode()
    assert "<html" not in answer.content.decode()


def test_a_refusal_is_shown_in_the_panel_that_asked(as_role: Clients, pair: SimpleNamespace) -> None:
    data = {"move": f"{pair.idle.pk}:99999:decode", "version": versions.current(), "reason": "why"}
    answer = as_role("operator").post(reverse("web:board-apply"), data, headers=HTMX)
    assert answer.status_code in (404, 409)
    assert "99999" in text(answer)
    assert "Nothing was changed" in text(answer)


def test_without_a_script_moves_are_added_by_a_form_and_shown(as_role: Clients, pair: SimpleNamespace) -> None:
    client = as_role("operator")
    first = move(pair.decode, pair, "prefill")
    data = {"move": first, "partition": [pair.idle.pk], "deployment": pair.deployment.pk, "role": "decode"}
    answer = client.post(reverse("web:plan"), data)
    expected = f"move={first}&move={pair.idle.pk}:{pair.deployment.pk}:decode"
    assert answer["Location"] == f"{reverse('web:plan')}?{expected}"
    page = client.get(answer["Location"])
    assert "Apply 2 moves" in text(page)
    assert "data-remove" in page.content.decode()


def test_the_same_deployment_as_now_is_the_default(as_role: Clients, pair: SimpleNamespace) -> None:
    answer = as_role("operator").post(reverse("web:plan"), {"partition": [pair.decode.pk], "role": "prefill"})
    assert answer["Location"].endswith(f"?move={move(pair.decode, pair, 'prefill')}")


def test_unassigned_is_a_place_to_go(as_role: Clients, pair: SimpleNamespace) -> None:
    answer = as_role("operator").post(reverse("web:plan"), {"partition": [pair.decode.pk], "role": "idle"})
    assert answer["Location"].endswith(f"?move={pair.decode.pk}:idle")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"role": "decode"}, "Tick at least one partition"),
        ({"partition": "idle"}, "Choose a role"),
        ({"partition": "idle", "role": "decode"}, "runs nothing now: choose a deployment"),
    ],
)
def test_an_unfinished_form_says_what_is_missing(
    data: dict, words: str, as_role: Clients, pair: SimpleNamespace
) -> None:
    sent = {key: pair.idle.pk if value == "idle" else value for key, value in data.items()}
    answer = as_role("operator").post(reverse("web:plan"), sent)
    assert answer.status_code == 422
    assert words in text(answer)
    assert "The draft was not changed" in text(answer)


def test_the_phone_flow_offers_each_way_with_its_load(as_role: Clients, pair: SimpleNamespace) -> None:
    page = as_role("operator").get(reverse("web:board-shift"))
    assert f"?deployment={pair.deployment.pk}&amp;source=decode&amp;target=prefill" in page.content.decode()
    assert "decode: 2 engines" in text(page)


def test_the_phone_flow_counts_and_previews(as_role: Clients, pair: SimpleNamespace) -> None:
    way = {"deployment": pair.deployment.pk, "source": "decode", "target": "prefill"}
    client = as_role("operator")
    one = client.get(reverse("web:board-shift"), way)
    assert "Apply 1 move" in text(one)
    assert 'value="TTFT is climbing"' in one.content.decode()
    assert "gpus=2" in one.content.decode()
    two = client.get(reverse("web:board-shift"), way | {"gpus": 2})
    assert "Apply 2 moves" in text(two)
    assert "The rules advise against it" in text(two)


def test_a_count_that_no_partitions_make_up_says_which_do(as_role: Clients, pair: SimpleNamespace) -> None:
    way = {"deployment": pair.deployment.pk, "source": "decode", "target": "prefill", "gpus": 7}
    answer = as_role("operator").get(reverse("web:board-shift"), way)
    assert "Possible: 1, 2." in text(answer)
    assert "data-apply" not in answer.content.decode()


def test_a_way_that_is_gone_shows_those_that_are_left(as_role: Clients, pair: SimpleNamespace) -> None:
    answer = as_role("operator").get(
        reverse("web:board-shift"), {"deployment": 999, "source": "decode", "target": "prefill"}
    )
    assert answer.status_code == 200
    assert "not there any more" in text(answer)


def test_the_palette_answers_a_command_with_a_draft(as_role: Clients, pair: SimpleNamespace) -> None:
    answer = as_role("operator").get(reverse("web:palette"), {"q": "flip gpu-1/p1 to prefill"}).json()
    assert answer["items"] == [
        {
            "label": "Flip gpu-1/p1 to prefill",
            "kind": "plan",
            "url": f"/board/?move={move(pair.decode, pair, 'prefill')}",
        }
    ]
    assert as_role("viewer").get(reverse("web:palette"), {"q": "flip gpu-1/p1 to prefill"}).json() == {"items": []}


def test_the_palette_answers_a_shift_with_its_preview_and_a_node_with_its_page(
    as_role: Clients, pair: SimpleNamespace
) -> None:
    client = as_role("operator")
    found = client.get(reverse("web:palette"), {"q": "move 1 gpu of chat from decode to prefill"}).json()["items"]
    assert "Apply 1 move" in text(client.get(found[0]["url"]))
    found = client.get(reverse("web:palette"), {"q": "cordon gpu-1"}).json()["items"]
    assert found[0]["url"] == f"{reverse('web:node', args=[pair.node.pk])}#intent"
    pair.node.refresh_from_db()
    assert pair.node.schedulable
