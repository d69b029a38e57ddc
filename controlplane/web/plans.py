"""What the panel of a draft shows: its preview as the service tells it, the form below it, and what to type for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from controlplane.audit.requests import actor_of
from controlplane.domain.problems import Problem
from controlplane.fleet import services
from controlplane.planning import load
from controlplane.web.answers import REFUSALS, problems_of
from controlplane.web.change_forms import ApplyChange
from controlplane.web.drafts import Draft

CHIPS = ("TTFT is climbing", "ITL is climbing", "Node trouble", "Making room")
UNDO_CHIPS = ("It did not help", "It made things worse", "Applied by mistake", "No longer needed")
_DESTRUCTIVE = {"last-replica", "would-stop-serving"}


def panel(
    request: HttpRequest,
    draft: Draft,
    *,
    form: ApplyChange | None = None,
    problems: Sequence[Problem] = (),
    undoes: int | None = None,
    apply_url: str = "",
) -> dict[str, Any]:
    """The context of board/_plan.html. A draft that cannot be previewed says why in `problems`."""
    plan, refusals = preview(request, draft, undoes)
    return {
        "draft": draft,
        "plan": plan,
        "problems": [*problems, *(refusal for refusal in refusals if refusal not in problems)],
        "form": form or ApplyChange(),
        "confirm": confirm_word(plan),
        "chips": CHIPS if undoes is None else UNDO_CHIPS,
        "undoes": undoes,
        "fixed": undoes is not None,  # its moves are given, not chosen one by one
        "apply_url": apply_url or reverse("web:board-apply"),
        "discard_url": reverse("web:board"),
        "replan_url": f"{reverse('web:plan')}?{draft.query}",
    }


def preview(
    request: HttpRequest, draft: Draft, undoes: int | None = None
) -> tuple[dict[str, Any] | None, tuple[Problem, ...]]:
    """The preview, or why there is none."""
    if not draft:
        return None, ()
    try:
        actor = actor_of(request, "web")
        return services.preview_change(draft.moves, actor=actor, live=load.live(), undoes=undoes), ()
    except REFUSALS as error:
        return None, problems_of(error)


def confirm_word(plan: dict[str, Any] | None) -> str:
    """What has to be typed before it is applied: the deployment that would lose its last engine of some role."""
    said = [] if plan is None else [problem["code"] for problem in (*plan["problems"], *plan["warnings"])]
    if plan is None or not _DESTRUCTIVE & set(said):
        return ""
    emptied = [e["deployment"]["name"] for e in plan["effects"] if e["engines_before"] and not e["engines_after"]]
    return emptied[0] if emptied else str(plan["moves"][0]["partition"]["name"])
