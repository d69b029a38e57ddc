"""HTTP routes: pages at /, REST at /api/v1/, the agents' uplink at /agent/v1/."""

from django.contrib import admin
from django.urls import include, path

from controlplane.api.metrics import Metrics

urlpatterns = [
    path("accounts/2fa/", include("allauth.mfa.urls")),
    path("accounts/", include("allauth.account.urls")),
    path("admin/", admin.site.urls),
    path("agent/v1/", include("controlplane.api.agent_urls")),
    path("api/v1/", include("controlplane.api.urls")),
    path("metrics", Metrics.as_view(), name="metrics"),
    path("", include("controlplane.web.urls")),
]
