"""Addresses of the REST API, under /api/v1/. None ends in a slash."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path, re_path
from rest_framework.routers import SimpleRouter

from controlplane.api.alert_settings import AlertRules, AlertTargets
from controlplane.api.alerts import Alerts, Silences
from controlplane.api.audit import Events
from controlplane.api.brake import Brake, ReleaseBrake, RestoreBrake
from controlplane.api.capacity import Capacity
from controlplane.api.capacity_methods import Comparisons, OneComparison
from controlplane.api.capacity_past import Activity, Spent
from controlplane.api.capacity_policy import Policy
from controlplane.api.changes import Changes
from controlplane.api.deployments import Deployments
from controlplane.api.docs import Docs, Schema
from controlplane.api.gpus import Gpus
from controlplane.api.health import Health
from controlplane.api.join_tokens import JoinTokens
from controlplane.api.keys import Keys
from controlplane.api.me import Me, Version
from controlplane.api.nodes import Nodes
from controlplane.api.partitions import Partitions
from controlplane.api.pool import Activations, Pool
from controlplane.api.prices import Prices
from controlplane.api.problems import no_route
from controlplane.api.profile_runs import ProfileRuns
from controlplane.api.profiles import Profiles
from controlplane.api.registry import Models
from controlplane.api.replicas import Replicas
from controlplane.api.requests import Demand, Requests
from controlplane.api.scaling import Scaling, ScalingPlans
from controlplane.api.scaling_policy import Policy as ScalingPolicy
from controlplane.api.service_accounts import ServiceAccounts
from controlplane.api.sizing import Sizing
from controlplane.api.teams import Teams
from controlplane.api.tokens import OneToken, Tokens
from controlplane.api.usage import Usage, UsageExport

app_name = "api"

router = SimpleRouter(trailing_slash=False)
router.register("nodes", Nodes, "node")
router.register("gpus", Gpus, "gpu")
router.register("models", Models, "model")
router.register("profiles", Profiles, "profile")
router.register("profile-runs", ProfileRuns, "profile-run")
router.register("deployments", Deployments, "deployment")
router.register("partitions", Partitions, "partition")
router.register("activations", Activations, "activation")
router.register("changes", Changes, "change")
router.register("scaling/plans", ScalingPlans, "scaling-plan")
router.register("replicas", Replicas, "replica")
router.register("requests", Requests, "request")
router.register("demand", Demand, "demand")
router.register("events", Events, "event")
router.register("alerts", Alerts, "alert")
router.register("silences", Silences, "silence")
router.register("alert-rules", AlertRules, "alert-rule")
router.register("alert-targets", AlertTargets, "alert-target")
router.register("keys", Keys, "key")
router.register("teams", Teams, "team")
router.register("prices", Prices, "price")
router.register("join-tokens", JoinTokens, "join-token")
router.register("service-accounts", ServiceAccounts, "service-account")

urlpatterns: list[URLPattern | URLResolver] = [
    *router.urls,
    path("tokens", Tokens.as_view(), name="tokens"),
    path("tokens/<slug:token_id>", OneToken.as_view(), name="token"),
    path("brake", Brake.as_view(), name="brake"),
    path("brake/release", ReleaseBrake.as_view(), name="brake-release"),
    path("brake/restore", RestoreBrake.as_view(), name="brake-restore"),
    path("capacity", Capacity.as_view(), name="capacity"),
    path("capacity/activity", Activity.as_view(), name="capacity-activity"),
    path("capacity/spent", Spent.as_view(), name="capacity-spent"),
    path("capacity/comparisons", Comparisons.as_view(), name="capacity-comparisons"),
    path("capacity/comparisons/<int:pk>", OneComparison.as_view(), name="capacity-comparison"),
    path("capacity/policy", Policy.as_view(), name="capacity-policy"),
    path("usage", Usage.as_view(), name="usage"),
    path("usage/export", UsageExport.as_view(), name="usage-export"),
    path("pool", Pool.as_view(), name="pool"),
    path("scaling", Scaling.as_view(), name="scaling"),
    path("scaling/policy", ScalingPolicy.as_view(), name="scaling-policy"),
    path("capacity/sizing", Sizing.as_view(), name="capacity-sizing"),
    path("me", Me.as_view(), name="me"),
    path("version", Version.as_view(), name="version"),
    path("health", Health.as_view(), name="health"),
    path("schema", Schema.as_view(), name="schema"),
    path("docs", Docs.as_view(), name="docs"),
    path("", include("controlplane.api.live_urls")),
    re_path(r"^(?P<path>(?s:.*))\Z", no_route),
]
