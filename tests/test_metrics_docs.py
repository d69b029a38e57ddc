"""docs/metrics.md, the dashboard and the alert rules speak of the metrics that there are, and of all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from controlplane.telemetry import valkey as telemetry_valkey
from tests import expositions
from tests.expositions import Family

DOCS = Path(__file__).resolve().parent.parent / "docs"
ROW = re.compile(r"^\| `(forebay_\w+)` \| (\w+) \| ([\w, ]*) \| (.+) \|$", re.MULTILINE)
TARGET = {"instance", "job"}  # labels that Prometheus gives a target
TOLD_AS_ZERO = {"status", "state", "severity", "answer"}  # labels whose every value is always exposed
pytestmark = pytest.mark.django_db


@pytest.fixture
def exposed(valkey: Any, settings: Any) -> Iterator[dict[str, Family]]:
    """All metrics of all processes, by name."""
    settings.REDIS_URL = valkey.url
    telemetry_valkey.reset()
    yield expositions.control_plane() | expositions.gateway() | expositions.agent()
    telemetry_valkey.reset()


def test_the_page_lists_every_metric_with_its_type_and_labels_and_no_other(exposed: dict[str, Family]) -> None:
    rows = ROW.findall((DOCS / "metrics.md").read_text())
    told = {name: (kind, frozenset(filter(None, labels.split(", ")))) for name, kind, labels, _ in rows}
    assert len(rows) == len(told), "a metric is listed twice"
    assert told == {family.name: (family.type, family.labels) for family in exposed.values()}


def test_every_metric_has_a_help_and_a_sample_to_learn_its_labels_from(exposed: dict[str, Family]) -> None:
    assert [family.name for family in exposed.values() if not family.help or not family.samples] == []


def test_every_panel_of_the_dashboard_asks_for_what_there_is(exposed: dict[str, Family]) -> None:
    dashboard = json.loads((DOCS / "grafana" / "forebay.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    asked = {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in panels}

    assert len(asked) == len(panels) and all(asked.values())
    assert [
        f"{title}: {why}" for title, exprs in asked.items() for expr in exprs for why in faults(expr, exposed)
    ] == []


def test_the_panels_of_the_dashboard_lie_beside_each_other() -> None:
    dashboard = json.loads((DOCS / "grafana" / "forebay.json").read_text())
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]

    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)
    assert len(set(cells)) == len(cells)
    assert {x for x, _ in cells} == set(range(24))


def test_every_alert_rule_asks_for_what_there_is(exposed: dict[str, Family]) -> None:
    rules = [
        rule
        for group in yaml.safe_load((DOCS / "prometheus" / "rules.yml").read_text())["groups"]
        for rule in group["rules"]
    ]

    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert faults(rule["expr"], exposed) == [], rule["alert"]
        assert rule["labels"]["severity"] in {"warning", "critical"}
        used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        assert used <= kept(promql.parse(rule["expr"])), f"{rule['alert']} speaks of labels that its result has not"


def test_a_query_of_what_is_not_there_is_found(exposed: dict[str, Family]) -> None:
    assert faults("forebay_node", exposed) == ["forebay_node is not exposed"]
    assert faults('sum(forebay_nodes{state="ready"})', exposed) == ["forebay_nodes has no label state"]
    assert faults('forebay_nodes{status=~"ready|mute"}', exposed) == ["forebay_nodes never has status mute"]
    assert faults("sum by (le) (rate(forebay_nodes[5m]))", exposed) == ["forebay_nodes has no label le"]
    assert faults("sum by (node) (forebay_nodes)", exposed) == ["forebay_nodes has no label node"]
    late = 'forebay_gateway_time_to_first_token_seconds_bucket{le="3"}'
    assert faults(late, exposed) == ["forebay_gateway_time_to_first_token_seconds never has le 3"]


def faults(expr: str, exposed: dict[str, Family]) -> list[str]:
    """Why a query can't be answered as it is meant: metrics, labels and values that nobody exposes."""
    plain = expr.replace("$__rate_interval", "5m").replace("$deployment", ".*")
    by_sample = {sample: family for family in exposed.values() for sample in family.samples}
    return list(_faults(promql.parse(plain), by_sample, frozenset()))


def _faults(node: Any, exposed: dict[str, Family], grouped: frozenset[str]) -> Iterator[str]:
    if isinstance(node, promql.VectorSelector):
        yield from _of_selector(node, exposed, grouped)
    elif isinstance(node, promql.AggregateExpr) and node.modifier is not None:
        grouped |= set(node.modifier.labels)
    for child in children(node):
        yield from _faults(child, exposed, grouped)


def _of_selector(node: Any, exposed: dict[str, Family], grouped: frozenset[str]) -> Iterator[str]:
    if (family := exposed.get(node.name)) is None:
        yield f"{node.name} is not exposed"
        return
    labels = family.labels | TARGET | ({"le"} if node.name.endswith("_bucket") else set())
    matchers = [(matcher.name, matcher.value) for matcher in node.matchers.matchers]
    yield from (f"{family.name} has no label {label}" for label in {*grouped, *dict(matchers)} if label not in labels)
    exact = TOLD_AS_ZERO | {"le"} | ({"outcome"} if family.name == "forebay_reports_total" else set())
    for label, value in matchers:
        if label in exact & labels:
            known = {known for name, known in family.values if name == label}
            known |= {known.removesuffix(".0") for known in known}
            yield from (f"{family.name} never has {label} {one}" for one in value.split("|") if one not in known)


def kept(node: Any) -> set[str]:
    """Labels that the result of a query has."""
    if isinstance(node, promql.AggregateExpr):
        return set(node.modifier.labels) if node.modifier else set()
    return set().union(*(kept(child) for child in children(node)))


def children(node: Any) -> list[Any]:
    found = [getattr(node, name, None) for name in ("lhs", "rhs", "expr", "vector_selector")]
    return [child for child in [*found, *(getattr(node, "args", None) or [])] if child is not None]
