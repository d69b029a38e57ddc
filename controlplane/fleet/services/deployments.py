"""How a registered model is served: make, change, delete."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from django.db import transaction

from controlplane.audit.services import Actor
from controlplane.domain import engine_args as rules
from controlplane.domain import pairing
from controlplane.domain.types import Problem
from controlplane.fleet import owners, trust, versions
from controlplane.fleet.errors import Invalid, Refused
from controlplane.fleet.facts import deployment_view
from controlplane.fleet.models import Deployment, Node, RegisteredModel
from controlplane.fleet.publish import publish
from controlplane.fleet.services import rows

ROLES = ("prefill", "decode", "aggregated")
LISTS = ("aliases", "engine_args", "prefill_args", "decode_args")
NO_NUMBERS = ("name", "mode", "convertible", "overflow", "pool_shape")
COLUMNS = (
    "name", "aliases", "mode", "engine_args", "prefill_args", "decode_args", "kv_connector", "min_transfer_tokens",
    "convertible", "prefill_max_requests", "decode_max_requests", "aggregated_max_requests", "drain_s", "slo_ttft_ms",
    "slo_itl_ms", *(f"{bound}_{role}" for bound in ("min", "max") for role in ROLES), "overflow", "pool_shape",
    "keep_alive_s", "priority",
)  # fmt: skip
IN_THE_ENGINE = {
    "name",
    "aliases",
    "engine_args",
    "prefill_args",
    "decode_args",
    "kv_connector",
    "model_id",
    "convertible",
}
OF_A_ROLE = {"prefill_args": "prefill", "decode_args": "decode"}  # in the engines of that role alone
CONNECTORS = ("NixlConnector",)
LONGEST_DRAIN_S = 3600
MOST_PRIORITY = 100
LARGEST = 2_147_483_647  # what the columns hold on PostgreSQL
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,119}")


@transaction.atomic
def create_deployment(
    *,
    name: str,
    model_id: int,
    aliases: Iterable[str] = (),
    mode: str = "dedicated",
    engine_args: Iterable[str] = (),
    prefill_args: Iterable[str] = (),
    decode_args: Iterable[str] = (),
    kv_connector: str = "NixlConnector",
    min_transfer_tokens: int = 0,
    convertible: bool = False,
    prefill_max_requests: int | None = None,
    decode_max_requests: int | None = None,
    aggregated_max_requests: int | None = None,
    drain_s: int = 120,
    slo_ttft_ms: int | None = None,
    slo_itl_ms: int | None = None,
    min_prefill: int = 0,
    max_prefill: int | None = None,
    min_decode: int = 0,
    max_decode: int | None = None,
    min_aggregated: int = 0,
    max_aggregated: int | None = None,
    overflow: bool = False,
    pool_shape: str = "aggregated",
    keep_alive_s: int | None = None,
    priority: int = 0,
    actor: Actor,
) -> Deployment:
    """`name` is what clients put in "model"; `aliases` are served too. Nothing runs until partitions are assigned."""
    given = locals()
    deployment = Deployment(model=rows.get(RegisteredModel, model_id))
    _write(deployment, {column: given[column] for column in COLUMNS})
    _require_valid(deployment)
    trust.require(actor, None, _facts(deployment))
    _save(deployment)
    versions.record(actor, "create", deployment, after=_facts(deployment))
    return deployment


@transaction.atomic
def update_deployment(
    deployment_id: int, *, actor: Actor, force: bool = False, reason: str = "", **changes: Any
) -> Deployment:
    """Change what `changes` names. Where running engines would have to be replaced it asks for `force`: they all drain
    and start again, and until the first is ready nothing serves the deployment."""
    if unknown := sorted(set(changes) - {*COLUMNS, "model_id"}):
        raise TypeError(f"update_deployment has no {', '.join(unknown)}")
    deployment = rows.lock_deployment(deployment_id)
    owners.require(actor, "deployment.change", deployment)
    nodes = _lock_nodes_of(deployment_id)
    before = _facts(deployment)
    _write(deployment, {column: value for column, value in changes.items() if column != "model_id"})
    if changes.get("model_id", deployment.model_id) != deployment.model_id:
        deployment.model = rows.get(RegisteredModel, changes["model_id"])
    after = _facts(deployment)
    changed = {column for column in after if after[column] != before[column]}
    if not changed:
        return deployment
    _require_valid(deployment)
    trust.require(actor, before, after)
    _require_replaceable(deployment, changed, force)
    _save(deployment)
    told = {"before": _only(before, changed), "after": _only(after, changed), "reason": reason}
    versions.record(actor, "change", deployment, **told)
    for node in nodes:
        publish(node)
    return deployment


@transaction.atomic
def delete_deployment(deployment_id: int, *, actor: Actor) -> None:
    """Refused while a partition is assigned to it."""
    deployment = rows.lock_deployment(deployment_id)
    owners.require(actor, "deployment.delete", deployment)
    if assigned := [str(partition) for partition in deployment.partitions.select_related("node")]:
        message = f"{deployment.name} is assigned to {', '.join(assigned)}."
        raise Refused([Problem("deployment-in-use", message, "Release those partitions first.")])
    versions.record(actor, "delete", deployment, before=_facts(deployment))
    deployment.delete()


def replaced_by(deployment: Deployment, changed: set[str]) -> int:
    """Running engines in whose command line these columns are: they drain and start again where one changes."""
    inside = changed & IN_THE_ENGINE
    engines = deployment.partitions.exclude(phase__in=["", "exited"]) if inside else deployment.partitions.none()
    if inside <= OF_A_ROLE.keys():
        engines = engines.filter(role__in=[OF_A_ROLE[column] for column in inside])
    return engines.count()


def problems_of(deployment: Deployment) -> list[Problem]:
    """What is wrong with its own values, whatever the state of the fleet."""
    problems = [_name_problem(name) for name in (deployment.name, *deployment.aliases)]
    problems += [_bounds_problem(deployment, role) for role in ROLES]
    problems += [_number_problem(deployment, column) for column in COLUMNS if column not in {*LISTS, *NO_NUMBERS}]
    if deployment.mode not in Deployment.Mode.values:
        problems.append(Problem("mode", f"{deployment.mode!r} is no mode.", "Use dedicated or pooled."))
    if deployment.kv_connector not in CONNECTORS:
        fix = f"Use {' or '.join(CONNECTORS)}."
        problems.append(Problem("kv-connector", f"{deployment.kv_connector!r} is no KV connector known here.", fix))
    for column in trust.COLUMNS:
        problems += rules.validate(getattr(deployment, column))
    problems.append(_convertible_problem(deployment))
    if deployment.pool_shape not in Deployment.PoolShape.values:
        problems.append(Problem("pool-shape", f"{deployment.pool_shape!r} is no shape.", "Use aggregated or pair."))
    elif deployment.is_pair:
        problems += _pair_problems(deployment)
    return [problem for problem in problems if problem]


def _require_valid(deployment: Deployment) -> None:
    if problems := problems_of(deployment):
        raise Invalid(problems)
    if problems := _taken_names(deployment):
        raise Refused(problems)


def _taken_names(deployment: Deployment) -> list[Problem]:
    """A served name means one deployment: the gateway could not tell two apart."""
    wanted = [deployment.name, *deployment.aliases]
    problems = []
    if len(set(wanted)) != len(wanted):
        problems.append(Problem("alias-twice", "A served name is given twice.", "Give each alias once."))
    for other in Deployment.objects.exclude(pk=deployment.pk):
        if common := {other.name, *other.aliases} & set(wanted):
            problems.append(_taken(", ".join(sorted(common)), other.name))
    return problems


def _taken(names: str, by: str) -> Problem:
    return Problem("served-name-taken", f"{names} is served by the deployment {by} already.", "Use another name.")


def _save(deployment: Deployment) -> None:
    with rows.saved_as(_taken(deployment.name, deployment.name)):
        deployment.save()


def _require_replaceable(deployment: Deployment, changed: set[str], force: bool) -> None:
    engines = replaced_by(deployment, changed)
    if force or not engines:
        return
    message = f"{engines} running engine{'s' * (engines > 1)} would be replaced at once; nothing serves meanwhile."
    fix = "Make a new deployment and move partitions one by one, or do it all the same with force."
    raise Refused([Problem("engines-replaced", message, fix, forceable=True)])


def _name_problem(name: str) -> Problem | None:
    if isinstance(name, str) and _NAME.fullmatch(name):
        return None
    fix = "Use up to 120 letters, digits and . _ / : -, beginning with a letter or digit."
    return Problem("served-name", f"{name!r} is no served name.", fix)


def _bounds_problem(deployment: Deployment, role: str) -> Problem | None:
    low, high = getattr(deployment, f"min_{role}"), getattr(deployment, f"max_{role}")
    if high is None or low <= high:
        return None
    return Problem("replica-bounds", f"At least {low} and at most {high} {role} replicas?", "Let min be at most max.")


def _convertible_problem(deployment: Deployment) -> Problem | None:
    """Arguments of one role would make its engines unfit for the other."""
    if not deployment.convertible or not (deployment.prefill_args or deployment.decode_args):
        return None
    message = "A convertible deployment has one set of engine arguments, good for every role."
    return Problem("convertible-args", message, "Move the arguments of one role to those of all roles.")


def _pair_problems(deployment: Deployment) -> list[Problem]:
    """What would stand against every pair of slots. A dedicated one may be given such engines with force; nobody forces
    the pool."""
    view = deployment_view(deployment)
    found = pairing.argument_problems(view)
    if view.facts.is_hybrid:
        message = f"{deployment.name} is a hybrid model; its running state may arrive garbled in a decode engine."
        found.append(Problem("hybrid-disaggregated", message, "Let the pool wake it aggregated."))
    return [replace(problem, forceable=False) for problem in found]


def _number_problem(deployment: Deployment, column: str) -> Problem | None:
    value = getattr(deployment, column)
    lowest = 1 if column.startswith("slo_") or column.endswith("_max_requests") else 0
    highest = LONGEST_DRAIN_S if column == "drain_s" else LARGEST
    if column == "priority":
        lowest, highest = -MOST_PRIORITY, MOST_PRIORITY
    if value is None or isinstance(value, str) or lowest <= value <= highest:
        return None
    return Problem("out-of-range", f"{column} cannot be {value}.", f"Use {lowest} to {highest}.")


def _lock_nodes_of(deployment_id: int) -> list[Node]:
    """In the order of their ids, so that two changes cannot wait for each other."""
    return list(
        Node.objects.select_for_update()
        .filter(pk__in=Node.objects.filter(partitions__deployment=deployment_id).values("pk"))
        .order_by("pk")
    )


def _write(deployment: Deployment, values: dict[str, Any]) -> None:
    for column, value in values.items():
        setattr(deployment, column, list(value) if column in LISTS else value)


def _facts(deployment: Deployment) -> dict[str, Any]:
    return {"model_id": deployment.model_id} | {column: getattr(deployment, column) for column in COLUMNS}


def _only(facts: dict[str, Any], columns: set[str]) -> dict[str, Any]:
    return {column: facts[column] for column in sorted(columns)}
