"""How lists are cut into pages."""

from __future__ import annotations

from rest_framework.pagination import CursorPagination, PageNumberPagination


class Pages(PageNumberPagination):
    """For what a person could count: nodes, models, keys."""

    parameters = frozenset({"page", "page_size"})
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 500


class Cursor(CursorPagination):
    """For what only grows: requests, demand, events. Newest first; rows that arrive meanwhile shift no page,
    and no page costs a count of the table."""

    parameters = frozenset({"cursor", "page_size"})
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 1000
    ordering = "-id"
