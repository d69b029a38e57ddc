"""What every page's frame needs: version, who is there, what they may do, where they are."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from controlplane.alerts import matching
from controlplane.audit import roles
from controlplane.fleet import brake
from controlplane.fleet.brake import Brake
from controlplane.web import undo

_NAV = (
    ("web:fleet", "Fleet", "fleet", "gf"),
    ("web:board", "Board", "board", "gb"),
    ("web:alerts", "Alerts", "alerts", "gl"),
    ("web:models", "Models", "models", "gm"),
    ("web:nodes", "Nodes", "nodes", "gn"),
    ("web:capacity", "Capacity", "capacity", "gc"),
    ("web:scaling", "Scaling", "scaling", "ge"),
    ("web:pool", "Pool", "pool", "gp"),
    ("web:cost", "Cost", "cost", "gt"),
    ("web:activity", "Activity", "activity", "ga"),
    ("web:logs", "Logs", "logs", "go"),
    ("web:settings", "Settings", "settings", "gs"),
)
_BELOW = {"models": ("/models/", "/deployments/"), "nodes": ("/nodes/", "/partitions/")}


def shell(request: HttpRequest) -> dict[str, Any]:
    return {"shell": Shell(request)}


class Shell:
    """Lazy: the login page and the admin ask for none of it."""

    version = settings.VERSION

    def __init__(self, request: HttpRequest) -> None:
        self._request = request
        self._level: roles.Level | None = None

    @property
    def sign_on_name(self) -> str:
        return settings.OIDC["name"] if settings.OIDC else ""

    @property
    def level(self) -> roles.Level:
        if self._level is None:
            self._level = roles.level_of(self._request.user)
        return self._level

    @property
    def lacks_second_factor(self) -> bool:
        return roles.lacks_second_factor(self._request.user)

    @property
    def role(self) -> str:
        return self.level.name.lower() if self.level else "no role"

    @cached_property
    def can(self) -> dict[str, bool]:
        """`can.node_join` for the action "node.join"."""
        return {action.replace(".", "_"): self.level >= needed for action, needed in roles.ACTIONS.items()}

    @cached_property
    def nav(self) -> list[dict[str, Any]]:
        return [
            {
                "url": (url := reverse(name)),
                "label": label,
                "icon": icon,
                "keys": keys,
                "here": self._is_here(url, icon),
            }
            for name, label, icon, keys in _NAV
        ]

    def _is_here(self, url: str, icon: str) -> bool:
        path = self._request.path
        return path == url if url == "/" else path.startswith(_BELOW.get(icon, (url,)))

    @cached_property
    def brake(self) -> Brake | None:
        """What is told on every page, to those who may see the fleet."""
        return brake.state() if self.level >= roles.ACTIONS["view"] else None

    @property
    def alerts(self) -> int:
        """How many fire that no silence mutes, for those who may see them."""
        return matching.told(timezone.now()) if self.level >= roles.ACTIONS["view"] else 0

    @property
    def undo(self) -> dict[str, Any] | None:
        return undo.take(self._request)
