"""Registering weights."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet import services
from controlplane.fleet.errors import Invalid, Refused
from controlplane.fleet.models import RegisteredModel
from tests.factories import GIB, SMOLLM2, make_deployment, make_gpus, make_model, make_node

pytestmark = pytest.mark.django_db


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with a config and one safetensors file of one real tensor."""
    (tmp_path / "config.json").write_text(json.dumps(SMOLLM2))
    header = json.dumps({"w": {"dtype": "BF16", "shape": [512, 2], "data_offsets": [0, 2048]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(2048))
    return tmp_path


def test_a_folder_is_read(actor: Actor, folder: Path) -> None:
    model = services.register_model(name="smol", source=str(folder), actor=actor)

    assert model.kind == "folder"
    assert model.facts["layers"] == 30
    assert model.facts["kv_heads"] == 3
    assert model.facts["parameter_bytes"] == 2048
    assert AuditEvent.objects.get(verb="register").after["source"] == str(folder)


def test_a_folder_without_a_config_is_invalid(actor: Actor, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"holds no config\.json"):
        services.register_model(name="smol", source=str(tmp_path), actor=actor)

    assert not RegisteredModel.objects.exists()


def test_a_repository_that_is_not_here_is_registered_as_unknown(
    actor: Actor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))

    model = services.register_model(name="gpt", source="openai/gpt-oss-120b", revision="main", actor=actor)

    assert (model.kind, model.revision) == ("huggingface", "main")
    assert model.facts["layers"] == 0
    assert model.facts["warnings"]


def test_a_repository_in_the_cache_is_read(
    actor: Actor, folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path_factory.mktemp("hf")
    cache = home / "hub" / "models--org--smol"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("abc123")
    (cache / "snapshots").mkdir()
    (cache / "snapshots" / "abc123").symlink_to(folder)
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)

    model = services.register_model(name="smol", source="org/smol", actor=actor)

    assert model.facts["layers"] == 30


@pytest.mark.parametrize("source", ["", "models/a/b", "../up", "./here", "~/home", "org/..", "just-a-word"])
def test_a_source_that_names_no_model_is_invalid(actor: Actor, source: str) -> None:
    with pytest.raises(Invalid):
        services.register_model(name="m", source=source, actor=actor)


@pytest.mark.parametrize("values", [{"name": ""}, {"name": "a b"}, {"revision": "../x"}, {"revision": "--flag; rm"}])
def test_names_and_revisions_are_checked(actor: Actor, values: dict) -> None:
    with pytest.raises(Invalid):
        services.register_model(**{"name": "m", "source": "org/model", "actor": actor, **values})


def test_a_name_is_used_once(actor: Actor) -> None:
    make_model("smol")

    with pytest.raises(Refused, match="There is a model smol already"):
        services.register_model(name="smol", source="org/smol", actor=actor)


def test_a_served_model_is_not_deleted(actor: Actor) -> None:
    deployment = make_deployment("chat")

    with pytest.raises(Refused, match="is served by chat"):
        services.delete_model(deployment.model_id, actor=actor)


def test_an_unserved_model_is_deleted(actor: Actor) -> None:
    model = make_model()

    services.delete_model(model.pk, actor=actor)

    assert not RegisteredModel.objects.exists()


def test_the_fit_is_told_for_each_kind_of_gpu(actor: Actor) -> None:
    node = make_node(gpus=2)
    make_gpus(node, 1, name="Tiny", memory_bytes=GIB // 2)
    make_gpus(node, 1, name="Gone", present=False)

    big, small = services.check_fit(make_model().pk, concurrency=4)

    assert (big["gpus"], big["fit"]["fits"]) == (2, True)
    assert (small["name"], small["fit"]["fits"]) == ("Tiny", False)
