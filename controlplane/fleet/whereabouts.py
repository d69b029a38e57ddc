"""Where weights lie and where they shall: what is held and what is wanted, beside each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from controlplane.fleet import weights
from controlplane.fleet.models import HeldWeights, Node, RegisteredModel, WantedWeights

State = WantedWeights.State


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Of one model on one node: what lies there, or shall, or both."""

    model: RegisteredModel
    node: Node
    held: HeldWeights | None
    wanted: WantedWeights | None

    @property
    def state(self) -> str:
        """Of what lies there: complete, partial or missing."""
        return self.held.state if self.held else "missing"

    @property
    def is_awaited(self) -> bool:
        """Whether its agent is to bring them still."""
        return self.wanted is not None and self.state != HeldWeights.State.COMPLETE

    @property
    def percent(self) -> int | None:
        """Of what is being fetched; None where nothing is, or nobody knows how much there is."""
        row = self.wanted
        if not self.is_awaited or row is None or row.state != State.FETCHING or not row.total_bytes:
            return None
        return min(100, 100 * row.bytes // row.total_bytes)


def of_node(node: Node) -> list[Whereabouts]:
    """By the model's name."""
    held = {model.pk: (model, row) for model, row in weights.of_node(node)}
    wanted = {row.model_id: row for row in node.wanted_weights.select_related("model")}
    models = {pk: model for pk, (model, _) in held.items()} | {pk: row.model for pk, row in wanted.items()}
    found = (
        Whereabouts(model, node, held[pk][1] if pk in held else None, wanted.get(pk)) for pk, model in models.items()
    )
    return sorted(found, key=lambda one: one.model.name)


def of_model(model: RegisteredModel) -> list[Whereabouts]:
    """By the node's name."""
    held = {row.node_id: row for row in weights.of_model(model)}
    wanted = {row.node_id: row for row in model.wanted_on.select_related("node").defer("node__spec")}
    nodes = {row.node_id: row.node for row in (*held.values(), *wanted.values())}
    found = (Whereabouts(model, node, held.get(pk), wanted.get(pk)) for pk, node in nodes.items())
    return sorted(found, key=lambda one: one.node.name)


def is_any_awaited(found: Iterable[Whereabouts]) -> bool:
    return any(one.is_awaited for one in found)
