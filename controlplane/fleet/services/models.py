"""Registering weights, and saying where they would fit."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from django.db import transaction

from controlplane.audit.services import Actor, record
from controlplane.domain import memory
from controlplane.domain.model_facts import FactsError, ModelFacts, read_folder
from controlplane.domain.types import Problem
from controlplane.fleet.errors import Invalid, Refused
from controlplane.fleet.facts import facts_of
from controlplane.fleet.models import Gpu, RegisteredModel
from controlplane.fleet.services import rows
from workers.contract import DeviceKind

LONGEST_SOURCE = 1024
USUAL_CONTEXT = 2048  # where the model does not say
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,119}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_REVISION = re.compile(r"([A-Za-z0-9_][\w./-]{0,63})?")


def register_model(*, name: str, source: str, revision: str = "", actor: Actor) -> RegisteredModel:
    """`source` is a folder, the same on the nodes as here, or a Hugging Face repository id that the engines load."""
    name, source, revision = name.strip(), source.strip(), revision.strip()
    facts = preview_register(name=name, source=source, revision=revision)
    kind = kind_of(source)
    with transaction.atomic():
        _require_free(name)
        with rows.saved_as(_name_taken(name)):
            model = RegisteredModel.objects.create(
                name=name, kind=kind, source=source, revision=revision, facts=facts.to_dict()
            )
        after = {"kind": kind, "source": source, "revision": revision}
        record(actor, "register", model, after=after)
    return model


def preview_register(*, name: str, source: str, revision: str = "") -> ModelFacts:
    """The facts that `register_model` would keep, refused where it would refuse; nothing is saved."""
    _require_names(name, revision)
    _require_free(name)
    return read_facts(source, revision)


@transaction.atomic
def delete_model(model_id: int, *, actor: Actor) -> None:
    """Forget the model; its files are not touched. Refused while a deployment serves it."""
    model = rows.get(RegisteredModel, model_id)
    if names := list(model.deployments.values_list("name", flat=True)):
        message = f"{model.name} is served by {', '.join(names)}."
        raise Refused([Problem("model-in-use", message, "Delete those deployments first.")])
    record(actor, "delete", model, before={"source": model.source, "revision": model.revision})
    model.delete()


def kind_of(source: str) -> str:
    if source.startswith(("/", "~", ".")):
        if not source.startswith("/") or len(source) > LONGEST_SOURCE:
            fix = "Give the full path of the folder, beginning with /."
            raise Invalid([Problem("model-source", f"{source[:80]} is not a full path.", fix)])
        return RegisteredModel.Kind.FOLDER
    if _REPOSITORY.fullmatch(source) and ".." not in source:
        return RegisteredModel.Kind.HUGGING_FACE
    fix = "Give a folder's full path, or a Hugging Face repository id such as organisation/model."
    raise Invalid([Problem("model-source", f"{source[:80] or 'Nothing'} names no model.", fix)])


def read_facts(source: str, revision: str = "") -> ModelFacts:
    """Facts of a source that is not registered yet. A repository that is not in this host's cache stays unknown."""
    _require_revision(revision)
    try:
        if kind_of(source) == RegisteredModel.Kind.FOLDER:
            return read_folder(source)
        snapshot = _cached_snapshot(source, revision)
        if snapshot is None:
            return ModelFacts.unknown("The engines load it from the hub; its size is not known here.")
        return read_folder(snapshot)
    except FactsError as error:
        raise Invalid([error.problem]) from error


def check_fit(
    model: int | ModelFacts,
    *,
    tp: int = 1,
    utilization: float = memory.UTILIZATION,
    concurrency: int = 8,
    context_tokens: int | None = None,
) -> list[dict[str, Any]]:
    """Whether a replica over `tp` GPUs would fit, for each kind of GPU in the fleet, with the numbers per GPU."""
    facts = model if isinstance(model, ModelFacts) else facts_of(rows.get(RegisteredModel, model))
    kinds = Counter(Gpu.objects.filter(present=True).order_by().values_list("kind", "name", "memory_bytes"))
    answers = []
    for (kind, name, memory_bytes), gpus in sorted(kinds.items(), key=lambda item: -item[0][2]):
        fit = memory.fit(
            facts,
            tp=tp,
            gpu_memory_bytes=memory_bytes,
            utilization=utilization,
            concurrency=concurrency,
            context_tokens=context_tokens or facts.context_length or USUAL_CONTEXT,
            cpu=kind == DeviceKind.CPU,
        )
        answers.append({"kind": kind, "name": name, "memory_bytes": memory_bytes, "gpus": gpus, "fit": fit.to_dict()})
    return answers


def _require_free(name: str) -> None:
    if RegisteredModel.objects.filter(name=name).exists():
        raise Refused([_name_taken(name)])


def _name_taken(name: str) -> Problem:
    return Problem("model-exists", f"There is a model {name} already.", "Use another name.")


def _require_names(name: str, revision: str) -> None:
    if not _NAME.fullmatch(name):
        fix = "Use up to 120 letters, digits and . _ / : -, beginning with a letter or digit."
        raise Invalid([Problem("model-name", f"{name!r} is no model name.", fix)])
    _require_revision(revision)


def _require_revision(revision: str) -> None:
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise Invalid([Problem("model-revision", f"{revision!r} is no revision.", "Give a branch, a tag or a commit.")])


def _cached_snapshot(repository: str, revision: str) -> Path | None:
    """The folder of a repository in this host's Hugging Face cache, as its library lays it out."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub")) / f"models--{repository.replace('/', '--')}"
    reference = cache / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else revision
    snapshot = cache / "snapshots" / commit
    return snapshot if commit and (snapshot / "config.json").is_file() else None
