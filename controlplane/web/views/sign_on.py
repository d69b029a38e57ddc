"""Single sign-on: to the provider and back. Open to everybody, for nobody is signed in yet."""

from __future__ import annotations

from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.helpers import render_authentication_error
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView, OAuth2LoginView
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_GET
from requests import RequestException

from controlplane.audit.sign_on import Flow, Provider


@require_GET
def there(request: HttpRequest) -> HttpResponse:
    return _walk(OAuth2LoginView, request)


@require_GET
def back(request: HttpRequest) -> HttpResponse:
    return _walk(OAuth2CallbackView, request)


def _walk(step: type, request: HttpRequest) -> HttpResponse:
    """Whatever is wrong with the provider is a page that says so; allauth lets some of it through."""
    if settings.OIDC is None:
        raise Http404("Single sign-on is not set up here.")
    flow = Flow(request, Provider.id)
    try:
        return step.adapter_view(flow)(request)
    except ImmediateHttpResponse as answer:
        return answer.response
    except (OAuth2Error, RequestException, KeyError, ValueError) as error:
        return render_authentication_error(request, flow.get_provider(), exception=error)
