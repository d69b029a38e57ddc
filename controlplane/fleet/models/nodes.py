"""Hosts, and what lets one join."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from controlplane.fleet.models.owned import Owned


class Node(Owned):
    """A host with one agent."""

    # services
    name = models.CharField(max_length=63, unique=True)
    address = models.CharField(max_length=255)  # where its engines are reached
    labels = models.JSONField(default=dict, blank=True)
    schedulable = models.BooleanField(default=True)
    draining = models.BooleanField(default=False)
    drain_began_at = models.DateTimeField(null=True)
    drain_deadline_at = models.DateTimeField(null=True)  # None: each engine has its deployment's drain_s
    cordoned_before = models.BooleanField(default=False)  # what cancelling the drain goes back to
    revoked = models.BooleanField(default=False)
    token_hash = models.CharField(max_length=64, db_index=True)  # sha256 hex of the node token
    broker_hash = models.CharField(max_length=64, blank=True)  # sha256 hex of its broker password
    created_at = models.DateTimeField(auto_now_add=True)
    # publish
    spec = models.JSONField(null=True)  # exactly what the agent gets (NodeSpec); holds engine keys
    generation = models.BigIntegerField(default=0)
    # reports
    instance = models.CharField(max_length=64, blank=True)  # the agent that owns this identity
    boot = models.CharField(max_length=64, blank=True)
    last_seq = models.BigIntegerField(default=0)
    last_seen = models.DateTimeField(null=True)  # server clock
    observed_generation = models.BigIntegerField(default=0)
    clock_skew_s = models.FloatField(null=True)  # agent clock minus server clock
    period_s = models.FloatField(default=1.0)
    agent_version = models.CharField(max_length=64, blank=True)
    engine_version = models.CharField(max_length=64, blank=True)
    driver = models.CharField(max_length=255, blank=True)
    simulated = models.BooleanField(default=False)
    memory_bytes = models.BigIntegerField(default=0)
    cpu_count = models.IntegerField(default=0)
    # weights
    weights_mark = models.CharField(max_length=64, blank=True)  # of what its agent last told that it holds
    weights_left_out = models.IntegerField(default=0)  # so many more it did not tell of
    # fetching
    fetch_room_bytes = models.BigIntegerField(null=True)  # what fetched weights may come to; null: not told
    fetch_why_not = models.CharField(max_length=256, blank=True)  # why nothing is fetched there
    # sleeping
    sleep_why_not = models.CharField(max_length=256, blank=True)  # why no engine sleeps there
    sleep_cap_bytes = models.BigIntegerField(null=True)  # of host memory, for those that do; null: not told
    sleep_held_bytes = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class JoinToken(models.Model):
    """Lets one node join once, until it expires. Only its hash is kept."""

    token_hash = models.CharField(max_length=64, unique=True)
    prefix = models.CharField(max_length=12)  # what people see of it
    node_name = models.CharField(max_length=63, blank=True)  # "" = any new name; else that node, re-join included
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)
    used_by = models.ForeignKey(Node, null=True, on_delete=models.SET_NULL, related_name="+")
    used_from = models.CharField(max_length=64, blank=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"join token {self.prefix}…"
