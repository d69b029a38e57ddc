"""Routes of the agents' uplink, under /agent/v1/."""

from django.urls import path

from controlplane.api import agent

urlpatterns = [
    path("join", agent.join),
    path("report", agent.report),
]
