"""The audit trail: who, what, when, why, before and after."""

from __future__ import annotations

import django_filters
from django import forms
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.views.decorators.http import require_GET

from controlplane.audit import export, search
from controlplane.audit.models import AppendOnly, AuditEvent
from controlplane.web.access import needs
from controlplane.web.answers import show
from controlplane.web.templatetags.present import said

PER_PAGE = 50
SOURCES = [("web", "pages"), ("rest", "REST"), ("agent", "agents"), ("system", "system")]
SUBJECTS = [
    ("node", "node"), ("partition", "partition"), ("deployment", "deployment"), ("registeredmodel", "model"),
    ("change", "change"), ("gpu", "GPU"), ("user", "user"), ("apikey", "API key"), ("jointoken", "join token"),
    ("alert", "alert"), ("alertrule", "alert rule"), ("silence", "silence"), ("alerttarget", "alert target"),
    ("recordedspan", "history"),
]  # fmt: skip


class Events(django_filters.FilterSet):
    q = django_filters.CharFilter(
        method="words", label="Contains", widget=forms.TextInput(attrs={"type": "search", "data-filter": ""})
    )
    who = django_filters.CharFilter(field_name="actor_name", lookup_expr="iexact", label="Who")
    verb = django_filters.ChoiceFilter(label="What", empty_label="anything", choices=lambda: _verbs())  # noqa: PLW0108
    about = django_filters.ChoiceFilter(
        field_name="subject_type", label="About", choices=SUBJECTS, empty_label="anything"
    )
    source = django_filters.ChoiceFilter(label="From", choices=SOURCES, empty_label="anywhere")
    since = django_filters.DateFilter(
        field_name="at", lookup_expr="date__gte", label="Since", widget=forms.DateInput(attrs={"type": "date"})
    )
    until = django_filters.DateFilter(
        field_name="at", lookup_expr="date__lte", label="Until", widget=forms.DateInput(attrs={"type": "date"})
    )

    class Meta:
        model = AuditEvent
        fields = ["q", "who", "verb", "about", "source", "since", "until"]

    def words(self, events: AppendOnly, _name: str, text: str) -> AppendOnly:
        return search.containing(events, text)


@require_GET
@needs("view")
def activity(request: HttpRequest) -> HttpResponse:
    chosen = Events(request.GET, queryset=AuditEvent.objects.all())
    page = Paginator(chosen.qs, PER_PAGE).get_page(request.GET.get("page"))
    kept = request.GET.copy()
    kept.pop("page", None)
    asked = any(value for value in kept.values())
    return show(
        request, "activity/list.html", {"filter": chosen, "page": page, "kept": kept.urlencode(), "asked": asked}
    )


@require_GET
@needs("view")
def download(request: HttpRequest, kind: str) -> HttpResponseBase:
    """The events that the filter chooses, as a file. A filter that makes no sense must not export everything."""
    chosen = Events(request.GET, queryset=AuditEvent.objects.all())
    if not chosen.is_valid():
        raise Http404("The filter is not understood. Choose again on the activity page.")
    return export.download(request, chosen.qs, kind)


def _verbs() -> list[tuple[str, str]]:
    return [
        (verb, said(verb)) for verb in AuditEvent.objects.order_by("verb").values_list("verb", flat=True).distinct()
    ]
