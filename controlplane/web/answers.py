"""How a view says what happened: a message and a redirect, or the refusal in the page that asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import messages
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme

from controlplane.domain.problems import DomainError, Problem
from controlplane.fleet.errors import FleetError

Refusal = FleetError | DomainError
REFUSALS = (FleetError, DomainError)


def problems_of(error: Refusal) -> tuple[Problem, ...]:
    return tuple(error.problems) if isinstance(error, FleetError) else (error.problem,)


def done(request: HttpRequest, message: str, to: Any, *args: Any) -> HttpResponse:
    messages.success(request, message)
    return redirect(to, *args)


def refused(request: HttpRequest, error: Refusal, to: Any, *args: Any) -> HttpResponse:
    """For a button without a page of its own: the refusal is told where the button was."""
    words = " ".join(f"{problem.message} {problem.fix}".strip() for problem in problems_of(error))
    messages.error(request, f"Nothing was changed. {words}")
    return redirect(to, *args)


def show(
    request: HttpRequest, template: str, context: dict[str, Any], error: Refusal | None = None, *, invalid: bool = False
) -> HttpResponse:
    """A page; with the status of a refusal where there is one."""
    if error is None:
        return render(request, template, context, status=422 if invalid else 200)
    status = error.status if isinstance(error, FleetError) else 409
    context = {**context, "problems": problems_of(error), "forceable": getattr(error, "forceable", False)}
    return render(request, template, context, status=status)


def find(rows: Any, pk: int, noun: str) -> Any:
    row = rows.filter(pk=pk).first()
    if row is None:
        raise Http404(f"There is no {noun} with the number {pk}. It may have been removed.")
    return row


def back(request: HttpRequest, fallback: str) -> str:
    """Where a form asks to return to, if that is a path of this site."""
    url = request.POST.get("next", "") or request.GET.get("next", "")
    same = url_has_allowed_host_and_scheme(url, allowed_hosts={request.get_host()}, require_https=request.is_secure())
    return url if url.startswith("/") and same else fallback


def names(rows: Iterable[Model]) -> str:
    return ", ".join(str(row) for row in rows)


def sent(request: HttpRequest) -> QueryDict | None:
    """What a form is bound to: nothing before it was sent, and what was sent even where that is nothing."""
    return request.POST if request.method == "POST" else None
