"""The fleet in Django's admin, to look at when something is wrong. What is changed goes through fleet.services: a row
edited here would leave no trace in the audit trail. Secrets are not shown."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from controlplane.fleet.models import Deployment, Gpu, GpuQualification, JoinToken, Node, Partition, RegisteredModel
from controlplane.fleet.selectors import redacted_spec


class ReadOnly(admin.ModelAdmin):
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Node)
class NodeAdmin(ReadOnly):
    list_display = ["name", "address", "schedulable", "draining", "revoked", "last_seen", "generation",
                    "observed_generation", "engine_version"]  # fmt: skip
    list_filter = ["schedulable", "draining", "revoked", "simulated"]
    search_fields = ["name", "address"]
    exclude = ["token_hash", "broker_hash", "spec"]
    readonly_fields = ["published"]

    @admin.display(description="spec, without engine keys")
    def published(self, node: Node) -> str:
        return json.dumps(redacted_spec(node), indent=2)


@admin.register(Partition)
class PartitionAdmin(ReadOnly):
    list_display = [
        "__str__",
        "deployment",
        "role",
        "phase",
        "generation",
        "observed_generation",
        "restarts",
        "message",
    ]
    list_filter = ["phase", "role", "node"]
    list_select_related = ["node", "deployment"]
    exclude = ["engine_key"]


@admin.register(Gpu)
class GpuAdmin(ReadOnly):
    list_display = ["__str__", "uuid", "kind", "name", "memory_bytes", "present", "health", "foreign", "partition"]
    list_filter = ["kind", "present", "health", "foreign", "node"]
    list_select_related = ["node", "partition__node"]
    search_fields = ["uuid"]


@admin.register(GpuQualification)
class GpuQualificationAdmin(ReadOnly):
    list_display = ["__str__", "cause", "asked_by", "asked_at", "state", "message", "ended_at", "accepted_by"]
    list_filter = ["state", "cause"]
    list_select_related = ["gpu__node"]


@admin.register(RegisteredModel)
class RegisteredModelAdmin(ReadOnly):
    list_display = ["name", "kind", "source", "revision", "created_at"]
    search_fields = ["name", "source"]


@admin.register(Deployment)
class DeploymentAdmin(ReadOnly):
    list_display = ["name", "model", "mode", "engine_args", "kv_connector", "created_at"]
    list_select_related = ["model"]
    search_fields = ["name"]


@admin.register(JoinToken)
class JoinTokenAdmin(ReadOnly):
    list_display = ["prefix", "node_name", "created_by", "created_at", "expires_at", "used_at", "used_by", "used_from"]
    list_select_related = ["created_by", "used_by"]
    exclude = ["token_hash"]
