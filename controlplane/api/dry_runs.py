"""Whether a request only asks what would happen: then it needs less of a role, and no key against repeating it."""

from __future__ import annotations

from rest_framework.request import Request


def is_dry_run(request: Request) -> bool:
    """Any other word than these is refused later, by the address that takes the parameter."""
    return request.query_params.get("dry_run", "").lower() in {"true", "1"}
