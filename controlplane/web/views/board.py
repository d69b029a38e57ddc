"""The assignment board, and the ways from it to a change: a draft is previewed as often as liked and applied once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from controlplane.audit.requests import actor_of
from controlplane.fleet import services
from controlplane.fleet.errors import FleetError
from controlplane.fleet.models import Deployment, Role
from controlplane.planning import load
from controlplane.web import drafts, rows
from controlplane.web.access import needs
from controlplane.web.answers import REFUSALS, Refusal, back, problems_of
from controlplane.web.change_forms import AddMoves, ApplyChange
from controlplane.web.changes import find_change, newest_changes
from controlplane.web.drafts import Draft
from controlplane.web.plans import confirm_word, panel, preview

STALE = "stale-plan"


@require_GET
@needs("view")
def board(request: HttpRequest) -> HttpResponse:
    draft, asked = drafts.read(request.GET), request.GET.get("change", "")
    context = {
        "deployments": Deployment.objects.order_by("name"),
        "roles": Role.values,
        "change": find_change(int(asked)) if asked.isdecimal() else None,
        "changes": newest_changes(),
        "here": reverse("web:board"),
    }
    return render(request, "board/board.html", context | panel(request, draft))


@require_GET
@needs("view")
def board_preview(request: HttpRequest) -> HttpResponse:
    """The panel of the draft as it is now; what was typed into it comes along."""
    typed = ApplyChange(initial=request.GET.dict())
    return render(request, "board/_plan.html", panel(request, drafts.read(request.GET), form=typed))


@require_http_methods(["GET", "POST"])
@needs("partition.assign")
def plan(request: HttpRequest) -> HttpResponse:
    """The draft as a form: the same as the board, without a script. A POST adds moves and shows the draft."""
    if request.method == "GET":
        return _plan_page(request, panel(request, drafts.read(request.GET)))
    draft, form = drafts.read(request.POST), AddMoves(request.POST)
    if not form.is_valid():
        words = " ".join(str(error) for errors in form.errors.values() for error in errors)
        picked = {int(pk) for pk in request.POST.getlist("partition") if pk.isdecimal()}
        return _plan_page(request, panel(request, draft) | {"form_problems": words, "picked": picked}, status=422)
    return redirect(f"{reverse('web:plan')}?{draft.plus(form.moves()).query}")


@require_POST
@needs("partition.assign")
def board_apply(request: HttpRequest) -> HttpResponse:
    return apply_draft(request, drafts.read(request.POST), request.POST)


def apply_draft(
    request: HttpRequest, draft: Draft, data: Mapping[str, Any], *, undoes: int | None = None
) -> HttpResponse:
    """Apply and show the change; or the same plan with what is missing in `data` or in the way of it."""
    expected = confirm_word(preview(request, draft)[0])
    form = ApplyChange(data, expected=expected)
    if not draft or not form.is_valid():
        return _again(request, draft, form, undoes)
    values = form.cleaned_data
    try:
        change = services.apply_change(
            draft.moves,
            version=values["version"],
            actor=actor_of(request, "web"),
            reason=values["reason"],
            force=values["force"],
            live=load.live(),
            kind="undo" if undoes else "change",
            undoes=undoes,
        )
    except REFUSALS as error:
        return _again(request, draft, form, undoes, error)
    return to_change(request, change.pk)


def to_change(request: HttpRequest, pk: int) -> HttpResponse:
    """Whoever came from the board stays there and sees the change's progress beside it."""
    board = reverse("web:board")
    if getattr(request, "htmx", False):
        return HttpResponse(status=204, headers={"HX-Redirect": f"{board}?change={pk}"})
    if back(request, "") == board:
        return redirect(f"{board}?change={pk}")
    return redirect("web:change", pk)


def _again(
    request: HttpRequest, draft: Draft, form: ApplyChange, undoes: int | None, error: Refusal | None = None
) -> HttpResponse:
    if error is not None and _is_stale(error):
        return _conflict(request, draft, error, undoes)
    status = 422 if error is None else error.status if isinstance(error, FleetError) else 409
    context = panel(
        request, draft, form=form, problems=problems_of(error) if error else (), undoes=undoes, apply_url=request.path
    )
    if getattr(request, "htmx", False):
        return render(request, "board/_plan.html", context, status=status)
    return _plan_page(request, context, status=status)


def _conflict(request: HttpRequest, draft: Draft, error: Refusal, undoes: int | None) -> HttpResponse:
    """Who changed what and when; nothing of the draft is lost."""
    told = {"message": problems_of(error)[0].message, "events": getattr(error, "events", ())}
    if getattr(request, "htmx", False):
        context = {"conflict": told} | panel(request, draft, undoes=undoes)
        answer = render(request, "board/_conflict.html", context, status=409)
        answer["X-Conflict"] = STALE
        return answer
    return _plan_page(
        request, {"conflict": told} | panel(request, draft, undoes=undoes, apply_url=request.path), status=409
    )


def _is_stale(error: Refusal) -> bool:
    return any(problem.code == STALE for problem in problems_of(error))


def _plan_page(request: HttpRequest, context: dict[str, Any], status: int = 200) -> HttpResponse:
    more = (
        {}
        if context["undoes"]
        else {
            "rows": rows.partitions(rows.PARTITIONS.all()),
            "deployments": Deployment.objects.order_by("name"),
            "roles": Role.values,
            "empty_words": "No move planned yet. Tick partitions below and say where they shall go.",
        }
    )
    return render(request, "board/plan.html", context | more, status=status)
