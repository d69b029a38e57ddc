"""Where weights lie, on the pages of a node and of a model."""

from __future__ import annotations

import pytest
from django.test import Client

from controlplane.fleet.models import HeldWeights
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
