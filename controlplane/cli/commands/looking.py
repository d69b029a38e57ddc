"""What there is and how it is: status, nodes, models, deployments, partitions."""

from __future__ import annotations

from collections.abc import Sequence

import click

from controlplane.cli import names
from controlplane.cli.client import Row
from controlplane.cli.findings import LENT, Finding, engines, findings
from controlplane.cli.options import ROLES, json_option
from controlplane.cli.session import Session, pass_session
from controlplane.cli.text import UNKNOWN, figure, moment, plain, share, size, span, table, word


@click.command()
@json_option
@pass_session
def status(session: Session) -> None:
    """The fleet in a few lines, and what is wrong with it."""
    client = session.client
    health = client.health()
    live = client.get("live")
    found = findings(health, live, client.every("deployments"))
    assigned, ready = engines(live)
    counts = {"assigned": assigned.total(), "ready": ready.total()}
    shown = {
        "url": client.url,
        "at": live["at"],
        "source": live["source"],
        "health": health,
        "summary": live["summary"],
        "engines": counts,
        "wrong": [finding.to_dict() for finding in found if finding.wrong],
        "notes": [finding.to_dict() for finding in found if not finding.wrong],
    }
    session.answer(shown, lambda: "\n".join(_summary(shown) + _lines(found)))


@click.command()
@json_option
@pass_session
def nodes(session: Session) -> None:
    """Hosts: status, GPUs, engines, load."""
    rows = session.client.get("live")["nodes"]
    session.answer(rows, lambda: _table_of_nodes(rows))


@click.command()
@click.option("--node", shell_complete=names.complete_node, help="Only of this node.")
@click.option("--deployment", shell_complete=names.complete_deployment, help="Only of this deployment.")
@click.option("--role", type=click.Choice(ROLES))
@click.option("--status", "wanted", help="Only these, as ready, starting, crash_looping, lost, unassigned.")
@json_option
@pass_session
def partitions(
    session: Session, node: str | None, deployment: str | None, role: str | None, wanted: str | None
) -> None:
    """Sets of GPUs, what runs on them, and how it does."""
    rows = [
        row
        for row in _partitions(session.client.get("live"))
        if node in (None, row["node"]["name"])
        and deployment in (None, (row["deployment"] or {}).get("name"))
        and role in (None, row["role"])
        and (wanted is None or wanted.replace("-", "_") == row["status"])
    ]
    session.answer(rows, lambda: _table_of_partitions(rows))


@click.command()
@json_option
@pass_session
def models(session: Session) -> None:
    """Registered models."""
    rows = session.client.every("models")
    session.answer(rows, lambda: _table_of_models(rows))


@click.command()
@json_option
@pass_session
def deployments(session: Session) -> None:
    """How models are served: ready engines of those assigned, by role."""
    rows = session.client.every("deployments")
    _, ready = engines(session.client.get("live"))
    for row in rows:  # the rows' own counts do not know that a silent node's engines are out of reach
        row["ready"] = {role: ready[row["name"], role] for role in (*ROLES, LENT)}
    session.answer(rows, lambda: _table_of_deployments(rows))


def _partitions(live: Row) -> list[Row]:
    """Flat, each with its node and its full name."""
    return [
        {"partition": f"{node['name']}/{row['name']}", "node": {"id": node["id"], "name": node["name"]}, **row}
        for node in live["nodes"]
        for row in node["partitions"]
    ]


def _summary(shown: Row) -> list[str]:
    summary, counts = shown["summary"], shown["engines"]
    gpus, nodes_, ttft, itl = summary["gpus"], summary["nodes"], summary["ttft_ms"], summary["itl_ms"]
    window = f"in the last {span(summary['window_s'])}" if summary["window_s"] else "no figures"
    return [
        f"{shown['url']} at {moment(shown['at'])} UTC",
        f"Nodes     {nodes_['total']}, {nodes_['silent']} silent",
        f"GPUs      {gpus['total']}: {gpus['assigned']} assigned, {gpus['idle']} idle, {gpus['unhealthy']} unhealthy",
        f"Engines   {counts['ready']} ready of {counts['assigned']} assigned",
        f"Models    {figure(summary['active_models'])} active",
        f"Requests  {figure(summary['rps'])}/s, {figure(summary['tokens_out_per_s'])} tokens/s, {window}",
        f"Latency   TTFT p50 {figure(ttft['p50'], 'ms')}, p95 {figure(ttft['p95'], 'ms')}; "
        f"between tokens p50 {figure(itl['p50'], 'ms')}, p95 {figure(itl['p95'], 'ms')}",
    ]


def _lines(found: Sequence[Finding]) -> list[str]:
    lines = []
    for title, wrong in (("Wrong", True), ("Also", False)):
        rows = [(finding.subject, finding.text, finding.look) for finding in found if finding.wrong is wrong]
        if rows:
            lines += ["", table((title.upper(), "WHAT", "LOOK AT"), rows)]
    if not any(finding.wrong for finding in found):
        lines += ["", "Nothing is wrong."]
    return lines


def _table_of_nodes(rows: list[Row]) -> str:
    if not rows:
        return "No node has joined yet. An admin starts with: forebay join-token NODE"
    headers = ("NODE", "STATUS", "HEARD", "GPUS", "ENGINES", "CPU", "MEMORY", "ENGINE", "LABELS")
    cells = []
    for row in rows:
        host = row["host"] or {}
        assigned = [partition for partition in row["partitions"] if partition["deployment"]]
        ready = sum(1 for partition in assigned if partition["status"] == "ready")
        memory = UNKNOWN if not host else f"{size(host['memory_used_bytes'])} of {size(host['memory_bytes'])}"
        labels = " ".join(f"{key}={value}" for key, value in sorted(row["labels"].items()))
        cells.append(
            (
                row["name"],
                word(row["status"]),
                "never" if row["age_s"] is None else f"{span(row['age_s'])} ago",
                str(len(row["gpus"])),
                f"{ready}/{len(assigned)}",
                share(host.get("cpu_utilization")),
                memory,
                row["engine_version"] or UNKNOWN,
                labels or UNKNOWN,
            )
        )
    return table(headers, cells, right=(3, 4, 5))


def _table_of_partitions(rows: list[Row]) -> str:
    if not rows:
        return "No such partitions."
    headers = ("PARTITION", "GPUS", "DEPLOYMENT", "ROLE", "STATUS", "FOR", "RUNNING", "WAITING", "KV", "MESSAGE")
    cells = []
    for row in rows:
        engine = row["engine"] or {}
        status_ = word(row["status"])
        if row["status"] == "ready" and not row["confirmed"]:
            status_ += ", not confirmed"
        cells.append(
            (
                row["partition"],
                str(len(row["gpus"])),
                row["deployment"]["name"] if row["deployment"] else UNKNOWN,
                row["role"] or UNKNOWN,
                status_,
                span(row["since_s"]),
                figure(engine.get("running")),
                figure(engine.get("waiting")),
                share(engine.get("kv_usage")),
                row["message"] or UNKNOWN,
            )
        )
    return table(headers, cells, right=(1, 5, 6, 7, 8))


def _table_of_models(rows: list[Row]) -> str:
    if not rows:
        return "No model is registered yet."
    headers = ("MODEL", "WEIGHTS", "DTYPE", "CONTEXT", "DEPLOYMENTS", "SOURCE")
    cells = []
    for row in rows:
        facts = row["facts"]  # zero and empty mean unknown here
        served_by = " ".join(deployment["name"] for deployment in row["deployments"])
        cells.append(
            (
                row["name"],
                size(facts.get("parameter_bytes") or None),
                facts.get("quantization") or facts.get("dtype") or UNKNOWN,
                figure(facts.get("context_length") or None),
                served_by or UNKNOWN,
                row["source"] + (f"@{row['revision']}" if row["revision"] else ""),
            )
        )
    return table(headers, cells, right=(1, 3))


def _mode(row: Row) -> str:
    return f"{row['mode']}, {row['pool_shape']}" if row["mode"] == "pooled" else str(row["mode"])


def _table_of_deployments(rows: list[Row]) -> str:
    if not rows:
        return "There is no deployment yet."
    roles = [role.upper() for role in (*ROLES, LENT)]
    headers = ("DEPLOYMENT", "MODEL", "MODE", *roles, "TTFT AIM", "ITL AIM", "ALIASES")
    cells = []
    for row in rows:
        counts = [f"{row['ready'][role]}/{row['replicas'][role]['assigned']}" for role in (*ROLES, LENT)]
        aims = (figure(row["slo_ttft_ms"], "ms"), figure(row["slo_itl_ms"], "ms"))
        cells.append(
            (row["name"], row["model"]["name"], _mode(row), *counts, *aims, plain(" ".join(row["aliases"])) or UNKNOWN)
        )
    return table(headers, cells, right=(3, 4, 5, 6, 7, 8))
