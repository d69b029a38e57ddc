"""Move N GPUs of a model from one role to another, in four taps on a phone: Move, the way, how many, Apply."""

from __future__ import annotations

from typing import Any

from django import forms as django_forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from controlplane.fleet import services
from controlplane.fleet.models import Deployment
from controlplane.planning import load
from controlplane.web import rows, shifts
from controlplane.web.access import needs
from controlplane.web.answers import REFUSALS, problems_of
from controlplane.web.change_forms import ApplyChange
from controlplane.web.drafts import Draft
from controlplane.web.plans import panel
from workers.contract import Role

_WHY = {Role.PREFILL: "TTFT is climbing", Role.DECODE: "ITL is climbing", Role.AGGREGATED: "Making room"}


class Asked(django_forms.Form):
    deployment = django_forms.IntegerField(min_value=1, max_value=2**62)
    source = django_forms.TypedChoiceField(coerce=Role, choices=[(role.value, role.value) for role in Role])
    target = django_forms.TypedChoiceField(coerce=Role, choices=[(role.value, role.value) for role in Role])
    gpus = django_forms.IntegerField(min_value=1, max_value=shifts.MOST_GPUS, required=False)


@require_GET
@needs("partition.assign")
def shift(request: HttpRequest) -> HttpResponse:
    """Without a way in the address: all of them, each a button that shows its load now."""
    live = load.live()
    offered = shifts.ways(Deployment.objects.order_by("name"), list(rows.PARTITIONS.all()), live)
    asked = Asked(request.GET)
    way = _chosen(offered, asked.cleaned_data) if asked.is_valid() else None
    if way is None:
        return render(request, "board/shift.html", {"ways": offered, "live": live, "gone": bool(request.GET)})
    possible = shifts.counts(way.source.sizes)
    count = asked.cleaned_data["gpus"] or possible[0]
    context = {"way": way, "gpus": count, **_beside(possible, count), **_plan(request, way, count)}
    return render(request, "board/shift.html", context)


def _chosen(offered: list[shifts.Way], asked: dict[str, Any]) -> shifts.Way | None:
    wanted = (asked["deployment"], asked["source"], asked["target"])
    return next((way for way in offered if (way.deployment.pk, way.source.role, way.target.role) == wanted), None)


def _beside(possible: list[int], count: int) -> dict[str, int | None]:
    fewer = [n for n in possible if n < count]
    more = [n for n in possible if n > count]
    return {"fewer": fewer[-1] if fewer else None, "more": more[0] if more else None}


def _plan(request: HttpRequest, way: shifts.Way, count: int) -> dict[str, Any]:
    wanted = services.Shift(
        deployment=way.deployment.pk, from_role=way.source.role, to_role=way.target.role, gpus=count
    )
    form = ApplyChange(initial={"reason": _WHY[way.target.role]})
    try:
        moves = services.choose_moves([wanted], live=load.live())
    except REFUSALS as error:
        return {"refused": problems_of(error)}
    return panel(request, Draft(tuple(moves)), form=form) | {"fixed": True}
