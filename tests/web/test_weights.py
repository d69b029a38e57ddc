"""Where weights lie, on the pages of a node and of a model."""

from __future__ import annotations

import pytest
from django.test import Client

from controlplane.fleet.models import HeldWeights, WantedWeights
from tests.factories import make_model, make_node, make_user

pytestmark = pytest.mark.django_db


def test_a_node_and_a_model_tell_where_weights_lie() -> None:
    node, model = make_node("n1", gpus=1), make_model("tiny", kind="folder", source="/models/tiny")
    client = Client()
    client.force_login(make_user("viewer"))
    assert "Its agent has not told" in client.get(f"/nodes/{node.pk}/").content.decode()
    assert "No node tells that it holds them" in client.get(f"/models/{model.pk}/").content.decode()
    HeldWeights.objects.create(
        node=node, source="/models/tiny", state="partial", bytes=2**20, total_bytes=2**21, message="a <b> is cut off"
    )
    for address, name in ((f"/nodes/{node.pk}/", "tiny"), (f"/models/{model.pk}/", "n1")):
        page = client.get(address).content.decode()
        assert "in part" in page and "1.0 MiB of 2.0 MiB" in page and "A &lt;b&gt; is cut off" in page and name in page
    answers = [
        client.get(f"/api/v1/{of}/weights").json()["weights"] for of in (f"nodes/{node.pk}", f"models/{model.pk}")
    ]
    assert answers[0] == answers[1]
    assert (answers[0][0]["model"], answers[0][0]["node"], answers[0][0]["state"]) == ("tiny", "n1", "partial")


def test_weights_are_fetched_by_a_button_taken_back_by_another_and_undone() -> None:
    node, model = make_node("n1", gpus=1), make_model("hub", kind="huggingface", source="org/hub")
    client = Client()
    client.force_login(make_user("operator"))
    page = client.get(f"/nodes/{node.pk}/").content.decode()
    assert "Fetch here" in page and "Fetch there" in client.get(f"/models/{model.pk}/").content.decode()
    answer = client.post(f"/nodes/{node.pk}/weights/want", {"model": model.pk}, follow=True)
    page = answer.content.decode()
    assert "hub is fetched to n1." in page and "asked for" in page and "Take back" in page and "Fetch here" not in page
    row = WantedWeights.objects.get()
    row.state, row.bytes, row.total_bytes = "fetching", 2**20, 2**22
    row.save()
    for address in (f"/nodes/{node.pk}/weights", f"/models/{model.pk}/weights"):
        part = client.get(address).content.decode()
        assert "fetching 25%" in part and "1.0 MiB of 4.0 MiB" in part and "every 3s" in part
    row.state, row.message = "failed", "no room: <disk>"
    row.save()
    part = client.get(f"/models/{model.pk}/weights").content.decode()
    assert "not fetched" in part and "No room: &lt;disk&gt;. Its agent tries again" in part
    client.post(f"/nodes/{node.pk}/weights/want", {"model": model.pk, "wanted": "no"})
    assert not WantedWeights.objects.exists()
    assert "every 3s" not in client.get(f"/nodes/{node.pk}/weights").content.decode()
    client.post(f"/models/{model.pk}/weights/want", {"node": node.pk})
    assert WantedWeights.objects.get().asked_by == row.asked_by


def test_a_folder_is_not_fetched_and_the_page_says_why() -> None:
    node, model = make_node("n1"), make_model("tiny", kind="folder", source="/models/tiny")
    client = Client()
    client.force_login(make_user("operator"))
    page = client.get(f"/models/{model.pk}/").content.decode()
    assert "It is a folder: nothing is fetched" in page and "Fetch there" not in page
    page = client.post(f"/nodes/{node.pk}/weights/want", {"model": model.pk}, follow=True).content.decode()
    assert "Nothing was changed. tiny is a folder" in page and not WantedWeights.objects.exists()


def test_over_rest_they_are_wanted_and_taken_back() -> None:
    node, model = make_node("n1"), make_model("hub", kind="huggingface", source="org/hub")
    client = Client()
    client.force_login(make_user("operator"))
    path = f"/api/v1/nodes/{node.pk}/weights"
    told = client.post(path, {"model": model.pk, "reason": "launch"}, content_type="application/json").json()
    [row] = told["weights"]
    assert (row["state"], row["bytes"], row["wanted"]["cause"], row["wanted"]["state"]) == (
        "missing",
        0,
        "operator",
        "",
    )
    assert told["fetch_room_bytes"] is None and told["fetch_why_not"] == ""
    assert client.get(f"/api/v1/models/{model.pk}/weights").json()["weights"] == [row]
    told = client.post(path, {"model": model.pk, "wanted": False}, content_type="application/json").json()
    assert told["weights"] == []
    refused = client.post(path, {"model": make_model(kind="folder").pk}, content_type="application/json")
    assert refused.status_code == 409 and "nothing to fetch" in refused.content.decode()
