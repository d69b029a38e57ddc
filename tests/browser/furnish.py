"""What the pictures show: models, deployments, nodes and assignments, made by the real services."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import django
import msgspec
from django.conf import settings
from django.utils import timezone

django.setup()

from controlplane.alerts import evaluation  # noqa: E402
from controlplane.alerts import services as alerts  # noqa: E402
from controlplane.alerts.models import Alert, AlertRule, AlertTarget  # noqa: E402
from controlplane.audit import people  # noqa: E402
from controlplane.audit.services import Actor  # noqa: E402
from controlplane.domain.rollout import Move  # noqa: E402
from controlplane.fleet import services, versions  # noqa: E402
from controlplane.fleet.models import Deployment, Node, Partition, RegisteredModel  # noqa: E402
from controlplane.telemetry.ingest import Ingest  # noqa: E402
from controlplane.telemetry.recorder import Recorder  # noqa: E402
from tests.browser.feigned import FeignedNode  # noqa: E402
from tests.browser.running import temporary  # noqa: E402
from workers.contract import NodeSpec, Role  # noqa: E402

ACTOR = Actor.system("pictures")
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
PLAN = [
    ["chat p4", "chat d4"],
    ["chat d4", "chat p4"],
    ["code p2", "code p2", "code d2", "code d2"],
    ["mini a1", "mini a1", "mini a1", "mini a1", "code d2", "idle2"],
    ["chat p4", "idle4"],
    ["idle8"],
    ["mini a1", "mini a1", "idle2", "idle4"],
]


def folder(name: str, gib: float) -> str:
    path = temporary("model") / name
    path.mkdir()
    (path / "config.json").write_text(json.dumps(LLAMA))
    index = {"metadata": {"total_size": int(gib * 2**30)}, "weight_map": {"a": "model.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    size = int(gib * 2**30)
    header = json.dumps({"a": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}).encode()
    with (path / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)  # holes: the size of real weights, none of the space
    return str(path)


def furnish(web: str, count: int) -> list[FeignedNode]:
    for name, gib in (("llama-3.1-8b-instruct", 15.0), ("code-llama-8b", 15.0), ("mini-1b", 2.4)):
        services.register_model(name=name, source=folder(name, gib), actor=ACTOR)
    models = list(RegisteredModel.objects.order_by("id"))
    for name, model in zip(("chat-8b", "code-8b", "mini-1b"), models, strict=True):
        services.create_deployment(
            name=name,
            model_id=model.pk,
            engine_args=["--max-model-len", "8192"],
            slo_ttft_ms=500,
            slo_itl_ms=40,
            actor=ACTOR,
        )
    nodes = [FeignedNode(web, f"h100-{n + 1:02d}") for n in range(count)]
    for node in nodes:
        _, token = services.issue_join_token(actor=ACTOR)
        node.join(token)
        services.label(node.id, labels={"rack": "a" if node.id % 2 else "b"}, actor=ACTOR)
    return nodes


def assign(nodes: list[FeignedNode]) -> dict[str, int]:
    """Split and assign as PLAN says; ids of the rows that the pictures are about."""
    names = {"chat": "chat-8b", "code": "code-8b", "mini": "mini-1b"}
    for feigned, parts in zip(nodes, PLAN * (1 + len(nodes) // len(PLAN)), strict=False):
        sizes = [int(part[-1]) for part in parts]
        starts = [sum(sizes[:n]) for n in range(len(sizes))]
        made = services.split_node(
            feigned.id, groups=[list(range(a, a + s)) for a, s in zip(starts, sizes, strict=True)], actor=ACTOR
        )
        for partition, part in zip(made, parts, strict=True):
            if not part.startswith("idle"):
                name, role = part.split()
                deployment = Deployment.objects.get(name=names[name])
                wanted = {"p": "prefill", "d": "decode", "a": "aggregated"}[role[0]]
                services.assign(
                    partition.pk, deployment_id=deployment.pk, role=wanted, actor=ACTOR, reason="first layout"
                )
    for name in ("ana", "ben"):
        people.create_user(username=name, role="operator", actor=ACTOR)
    services.set_node_owners(nodes[0].id, names=["ana"], actor=ACTOR, reason="production")
    services.cordon(nodes[5].id, actor=ACTOR, reason="firmware update at 14:00")
    on = lambda n, name: Partition.objects.get(node_id=nodes[n].id, name=name).pk  # noqa: E731
    return {
        "ready": on(0, "p0"),
        "crashing": on(3, "p1"),
        "draining": on(4, "p0"),
        "idle": on(4, "p1"),
        "cordoned": on(5, "p0"),
        "node": nodes[0].id,
        "crash_node": nodes[3].id,
        "silent_node": nodes[-1].id,
        "cordoned_node": nodes[5].id,
        "deployment": Deployment.objects.get(name="chat-8b").pk,
        "model": RegisteredModel.objects.get(name="mini-1b").pk,
        "free_node": Node.objects.get(pk=nodes[5].id).pk,
    }


def alarm() -> dict[str, int]:
    """Alerts by the real rules, at once rather than after their durations; ids of what the pictures are about."""
    for rule in AlertRule.objects.filter(enabled=True):
        threshold = {} if rule.kind.fixed else {"node-silent": {"threshold": 4}, "gpu-hot": {"threshold": 60}}
        alerts.change_rule(rule.pk, for_s=0, **threshold.get(rule.key, {}), actor=ACTOR)
    alerts.create_target(name="on call", kind="pagerduty", secret="R0", min_severity="critical", actor=ACTOR)
    dead = alerts.create_target(name="team chat", kind="slack", address="http://127.0.0.1:9/T0/B0", actor=ACTOR)
    alerts.try_target(dead.pk, actor=ACTOR)
    alerts.change_target(AlertTarget.objects.get(name="on call").pk, enabled=False, actor=ACTOR)
    evaluation.tick()
    firing = list(Alert.objects.filter(state="firing").order_by("pk"))
    alerts.acknowledge(firing[0].pk, note="its switch is being replaced", actor=ACTOR)
    soon = timezone.now() + timedelta(hours=4)
    alerts.silence(until=soon, reason="known, fans on order", rule=firing[-1].rule, actor=ACTOR)
    alerts.change_rule(AlertRule.objects.get(key="agent-version").pk, enabled=False, actor=ACTOR)
    evaluation.tick()
    rule = AlertRule.objects.get(key="disk-low")
    return {"alert": firing[0].pk, "rule": rule.pk, "target": dead.pk}


def alert_scenes(ids: dict[str, int]) -> list[tuple[str, str, Any]]:
    return [
        ("alerts", "/alerts/", None),
        ("alert", f"/alerts/{ids['alert']}/", None),
        ("alert-silence", f"/alerts/silence?alert={ids['alert']}", None),
        ("alert-rules", "/alerts/rules/", None),
        ("alert-rule", f"/alerts/rules/{ids['rule']}/", None),
        ("alert-targets", "/alerts/targets/", None),
        ("alert-target", f"/alerts/targets/{ids['target']}/", None),
    ]


def scenes(ids: dict[str, int]) -> list[tuple[str, str, Any]]:
    source = RegisteredModel.objects.first().source

    def typed_fit(page: Any) -> None:
        page.fill("#id_source", source)
        page.fill("#id_name", "llama-8b-again")
        page.wait_for_timeout(1500)

    def issue(page: Any) -> None:
        page.click("main button[type=submit]")
        page.wait_for_timeout(800)

    def palette(page: Any) -> None:
        page.keyboard.press("Control+k")
        page.wait_for_timeout(700)

    def chooser(page: Any) -> None:
        page.locator("[data-piece]").first.focus()
        page.keyboard.press("m")

    draft = f"move={ids['ready']}:{ids['deployment']}:decode&move={ids['idle']}:{ids['deployment']}:prefill"

    def helped(page: Any) -> None:
        page.keyboard.press("?")

    return [
        ("fleet", "/", None),
        ("fleet-selected", f"/?sel=p{ids['ready']}", None),
        ("fleet-node", f"/?sel=n{ids['node']}&range=24h", None),
        ("fleet-whole", "/?sel=c", None),
        ("fleet-crashing", f"/?sel=p{ids['crashing']}", None),
        ("fleet-kv", "/?fill=kv&group=model", None),
        ("fleet-role", "/?fill=temperature&group=role", None),
        ("fleet-nothing", "/?filter=nosuch", None),
        ("palette", "/", palette),
        ("help", "/", helped),
        ("board", "/board/", None),
        ("board-draft", f"/board/?{draft}", None),
        ("board-chooser", "/board/", chooser),
        ("plan", f"/board/plan?{draft}", None),
        ("shift", "/board/shift", None),
        ("shift-count", f"/board/shift?deployment={ids['deployment']}&source=decode&target=prefill", None),
        ("models", "/models/", None),
        ("register", "/models/register", typed_fit),
        ("model", f"/models/{ids['model']}/", None),
        ("deployment", f"/deployments/{ids['deployment']}/", None),
        ("deployment-day", f"/deployments/{ids['deployment']}/?range=24h#charts", None),
        ("deployment-form", f"/deployments/{ids['deployment']}/edit", None),
        ("nodes", "/nodes/", None),
        ("node", f"/nodes/{ids['node']}/?range=15m", None),
        ("node-day", f"/nodes/{ids['node']}/?range=24h#charts", None),
        ("node-silent", f"/nodes/{ids['silent_node']}/", None),
        ("node-crashing", f"/nodes/{ids['crash_node']}/", None),
        ("node-add", "/nodes/add", None),
        ("node-token", "/nodes/add", issue),
        ("split", f"/nodes/{ids['free_node']}/split", None),
        ("split-busy", f"/nodes/{ids['node']}/split", None),
        ("assign", f"/partitions/{ids['idle']}/assign", None),
        ("assign-flip", f"/partitions/{ids['ready']}/assign?role=decode", None),
        ("assign-refused", f"/partitions/{ids['cordoned']}/assign", None),
        ("release", f"/partitions/{ids['draining']}/release", None),
        ("drain", f"/nodes/{ids['node']}/drain", None),
        ("owners", f"/nodes/{ids['node']}/owners", None),
        ("revoke", f"/nodes/{ids['node']}/revoke", None),
        ("activity", "/activity/", None),
        ("logs", "/logs/", None),
        ("settings", "/settings/", None),
        ("keys", "/settings/keys", None),
        ("users", "/settings/users", None),
        ("404", "/nodes/9999/", None),
    ]


def change_scenes(ids: dict[str, int]) -> list[tuple[str, str, Any]]:
    """After `change`: these pictures come last, because the fleet is another one then."""
    chat, flipped = ids["deployment"], ids["flipped"]

    def conflict(page: Any) -> None:
        services.assign(flipped, deployment_id=chat, role=_other(flipped), actor=Actor.system("olga"), reason="mine")
        page.get_by_label("Reason").fill("TTFT is climbing")
        page.get_by_role("button", name="Apply").click()
        page.wait_for_timeout(900)

    draft = f"/board/?move={flipped}:{chat}:aggregated"
    return [
        ("board-done", f"/board/?change={ids['done']}", None),
        ("board-stopped", f"/board/?change={ids['stopped']}", None),
        ("board-conflict", draft, conflict),
        ("change", f"/changes/{ids['done']}/", None),
        ("change-stopped", f"/changes/{ids['stopped']}/", None),
        ("changes", "/changes/", None),
    ]


def change(ids: dict[str, int]) -> None:
    """One change that succeeds, and one that stops because its engine does not come up."""
    actor, chat = Actor(name="olga", source="web"), ids["deployment"]
    ids["flipped"] = Partition.objects.filter(deployment_id=chat, role="decode").order_by("-pk")[0].pk
    for key, partition in (("done", ids["flipped"]), ("stopped", ids["idle"])):
        moves = [Move(partition, chat, Role.PREFILL)]
        made = services.apply_change(moves, version=versions.current(), actor=actor, reason="TTFT is climbing")
        ids[key] = made.pk


def _other(partition: int) -> str:
    return "decode" if Partition.objects.get(pk=partition).role == "prefill" else "prefill"


def remember(hours: float = 24.0, every_s: int = 60) -> int:
    """Samples of the past, through the real windows and the real recorder; how many rows. A quarter of an hour of all
    nodes is missing, and more of every third: gaps as after an outage."""
    now, rows = int(time.time() // 10) * 10, 0
    nodes = [_again(node) for node in Node.objects.all()]
    ingest = Ingest(settings.SAMPLE_EVERY_S)
    recorder = Recorder(ingest)
    recent = min(3600, int(hours * 3600))
    coarse = range(now - int(hours * 3600), now - recent, every_s)
    times = [*(at + s for at in coarse for s in (0, 5)), *range(now - recent, now, 10)]  # rates need two reports
    for number, at in enumerate(times):
        for node in nodes:
            if now - 9000 < at < now - 8100 or (node.id % 3 == 0 and now - 20000 < at < now - 15000):
                continue
            node.clock = lambda at=at: float(at)
            node.seq += 1
            ingest.accept(node.id, node.told(), float(at))
        if number % 20 == 0:
            rows += recorder.record(float(at))
    return rows + recorder.record(float(now), all_of_them=True)


def _again(row: Node) -> FeignedNode:
    """The node as it reports, in a process that has not seen it join."""
    made = FeignedNode("", row.name, gpus=row.gpus.count(), starts_s=-1.0)
    made.id = row.pk
    made.spec = msgspec.convert(row.spec, NodeSpec) if row.spec else None
    return made
