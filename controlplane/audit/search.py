"""Finding events by what people remember of them."""

from __future__ import annotations

from django.db.models import Q

from controlplane.audit.models import AppendOnly

COLUMNS = ("actor_name", "verb", "subject_name", "reason", "detail", "request_id")


def containing(events: AppendOnly, text: str) -> AppendOnly:
    """Those in which each word of `text` stands somewhere, in any case."""
    for word in text.split():
        found = Q()
        for column in COLUMNS:
            found |= Q(**{f"{column}__icontains": word})
        events = events.filter(found)
    return events
