"""HTTP routes: pages at /, REST at /api/v1/, the agents' uplink at /agent/v1/."""

from typing import NoReturn

from django.contrib import admin
from django.http import Http404, HttpRequest
from django.urls import include, path

from controlplane.api.metrics import Metrics


def _closed(request: HttpRequest) -> NoReturn:
    """Who signs in elsewhere must not get a password here, nor an address to which one could be sent."""
    raise Http404("There is no such page here.")


handler500 = "controlplane.web.views.errors.failed"
urlpatterns = [
    path("accounts/password/set/", _closed),
    path("accounts/email/", _closed),
    path("accounts/2fa/", include("allauth.mfa.urls")),
    path("accounts/", include("allauth.account.urls")),
    path("admin/", admin.site.urls),
    path("agent/v1/", include("controlplane.api.agent_urls")),
    path("api/v1/", include("controlplane.api.urls")),
    path("metrics", Metrics.as_view(), name="metrics"),
    path("", include("controlplane.web.urls")),
]
