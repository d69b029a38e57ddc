"""The OpenAPI schema and the page to try it on. Both need a login and nothing from outside this server."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.views import redirect_to_login
from django.http import HttpResponseBase
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings

from controlplane.api.permissions import RolePermission


class Schema(SpectacularAPIView):
    permission_classes = [RolePermission]
    authentication_classes = api_settings.DEFAULT_AUTHENTICATION_CLASSES

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)


class Docs(SpectacularSwaggerSplitView):
    """Swagger UI with its start-up script at an address of its own: the site's CSP lets no inline script run."""

    url_name = "api:schema"
    template_name = "api/docs.html"
    permission_classes = [RolePermission]
    authentication_classes = api_settings.DEFAULT_AUTHENTICATION_CLASSES

    def handle_exception(self, error: Exception) -> HttpResponseBase:
        """A person in a browser: the login page serves better than a problem document."""
        if isinstance(error, NotAuthenticated):
            return redirect_to_login(self.request.get_full_path())
        return super().handle_exception(error)
