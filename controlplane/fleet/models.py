"""Desired and observed state of the fleet. Each column has one writer, named beside it.

desired: fleet.services    published: fleet.publish    observed: fleet.reports    verified: fleet.verified
"""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Role(models.TextChoices):
    """The same values as workers.contract.Role, with labels for people."""

    PREFILL = "prefill"
    DECODE = "decode"
    AGGREGATED = "aggregated"


class Node(models.Model):
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

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class RegisteredModel(models.Model):
    """Weights and their facts."""

    class Kind(models.TextChoices):
        FOLDER = "folder"
        HUGGING_FACE = "huggingface"

    name = models.CharField(max_length=120, unique=True)
    kind = models.CharField(max_length=12, choices=Kind.choices)
    source = models.CharField(max_length=1024)  # folder on the nodes, or a repository id
    revision = models.CharField(max_length=64, blank=True)
    facts = models.JSONField(default=dict)  # domain.model_facts.ModelFacts as a dict
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Deployment(models.Model):
    """How a RegisteredModel is served."""

    class Mode(models.TextChoices):
        DEDICATED = "dedicated"
        POOLED = "pooled"

    name = models.CharField(max_length=120, unique=True)  # the served name: what clients put in "model"
    aliases = models.JSONField(default=list, blank=True)
    model = models.ForeignKey(RegisteredModel, on_delete=models.PROTECT, related_name="deployments")
    mode = models.CharField(max_length=10, choices=Mode.choices, default=Mode.DEDICATED)
    engine = models.CharField(max_length=12, default="vllm")
    engine_args = models.JSONField(default=list, blank=True)  # both roles
    prefill_args = models.JSONField(default=list, blank=True)
    decode_args = models.JSONField(default=list, blank=True)
    kv_connector = models.CharField(max_length=40, default="NixlConnector")
    min_transfer_tokens = models.PositiveIntegerField(default=0)  # shorter prompts go straight to decode
    convertible = models.BooleanField(default=False)  # one set of engine arguments for all roles: a flip is a relabel
    # most requests in flight that one gateway gives one engine of that role
    prefill_max_requests = models.PositiveIntegerField(null=True, blank=True)
    decode_max_requests = models.PositiveIntegerField(null=True, blank=True)
    drain_s = models.PositiveIntegerField(default=120)
    slo_ttft_ms = models.PositiveIntegerField(null=True, blank=True)
    slo_itl_ms = models.PositiveIntegerField(null=True, blank=True)
    min_prefill = models.PositiveIntegerField(default=0)
    max_prefill = models.PositiveIntegerField(null=True, blank=True)
    min_decode = models.PositiveIntegerField(default=0)
    max_decode = models.PositiveIntegerField(null=True, blank=True)
    min_aggregated = models.PositiveIntegerField(default=0)
    max_aggregated = models.PositiveIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Partition(models.Model):
    """A named set of GPUs of one node that runs at most one awake engine process."""

    # services
    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="partitions")
    name = models.CharField(max_length=40)
    deployment = models.ForeignKey(
        Deployment, null=True, blank=True, on_delete=models.PROTECT, related_name="partitions"
    )
    role = models.CharField(max_length=12, choices=Role.choices, blank=True)
    pinned = models.BooleanField(default=False)
    engine_key = models.CharField(max_length=64, blank=True)  # API key of the engine that fills it
    # publish: the node's generation at the last change that this partition's replica has to confirm
    generation = models.BigIntegerField(default=0)
    # reports
    phase = models.CharField(max_length=10, blank=True)  # workers.contract.Phase, "" = no process
    phase_since = models.DateTimeField(null=True)
    observed_generation = models.BigIntegerField(default=0)
    observed_role = models.CharField(max_length=12, blank=True)
    endpoint = models.CharField(max_length=255, blank=True)
    pid = models.IntegerField(default=0)
    restarts = models.IntegerField(default=0)
    message = models.TextField(blank=True)
    ready_after_s = models.FloatField(null=True)
    engine_version = models.CharField(max_length=64, blank=True)
    # verified: what a gateway's own request through the engine came to
    verified_generation = models.BigIntegerField(default=0)  # the newest that answered
    verified_at = models.DateTimeField(null=True)
    verify_message = models.CharField(
        max_length=256, blank=True
    )  # why it did not answer; "" = it did, or was not asked
    verify_failures = models.PositiveIntegerField(default=0)  # in a row, of failed_generation
    failed_generation = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["node__name", "name"]
        constraints = [
            models.UniqueConstraint(fields=["node", "name"], name="partition_name_per_node"),
            models.CheckConstraint(
                condition=models.Q(deployment__isnull=True, role="")
                | (models.Q(deployment__isnull=False) & ~models.Q(role="")),
                name="partition_deployment_and_role_together",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.node.name}/{self.name}"


class Gpu(models.Model):
    """One accelerator, or CPU slot, as its agent reports it. It lies in one partition at most."""

    # reports
    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="gpus")
    uuid = models.CharField(max_length=256)
    index = models.IntegerField()
    kind = models.CharField(max_length=10)  # workers.contract.DeviceKind
    name = models.CharField(max_length=255)
    memory_bytes = models.BigIntegerField()
    mig_parent = models.CharField(max_length=256, blank=True)
    pci = models.CharField(max_length=256, blank=True)
    peers = models.JSONField(default=list)
    present = models.BooleanField(default=True)  # in the last report
    health = models.CharField(max_length=10, default="ok")
    health_detail = models.CharField(max_length=255, blank=True)
    foreign = models.BooleanField(default=False)  # a process of somebody else's is on it
    # services
    partition = models.ForeignKey(Partition, null=True, blank=True, on_delete=models.SET_NULL, related_name="gpus")

    class Meta:
        ordering = ["node__name", "index"]
        constraints = [models.UniqueConstraint(fields=["node", "uuid"], name="gpu_uuid_per_node")]

    def __str__(self) -> str:
        return f"{self.node.name}/gpu{self.index}"


class GatewayBeat(models.Model):
    """A gateway process that lives, or did until `seen_at`."""

    # verified
    name = models.CharField(max_length=255, unique=True)  # host:port
    address = models.CharField(max_length=255, blank=True)  # what it listens on
    seen_at = models.DateTimeField(db_index=True)

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


class FleetVersion(models.Model):
    """One row: counts the changes that people and plans make to the fleet. Its lock orders them."""

    number = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"version {self.number}"


class Revision(models.Model):
    """One change of intent: which version it made, and what it touched. A plan made before it may be stale."""

    number = models.BigIntegerField(unique=True)
    event = models.OneToOneField("audit.AuditEvent", on_delete=models.PROTECT, related_name="revision")
    nodes = models.JSONField(default=list)
    deployments = models.JSONField(default=list)
    change = models.ForeignKey("Change", null=True, on_delete=models.SET_NULL, related_name="revisions")

    class Meta:
        ordering = ["number"]

    def __str__(self) -> str:
        return f"revision {self.number}"


class Change(models.Model):
    """Several moves that belong together. The only writer is fleet.services."""

    class State(models.TextChoices):
        """running -> done | stopped | rolled_back; stopped -> running, forwards (resume) or backwards (roll back)."""

        RUNNING = "running"
        STOPPED = "stopped"
        DONE = "done"
        ROLLED_BACK = "rolled_back"

    class Kind(models.TextChoices):
        CHANGE = "change"
        UNDO = "undo"
        DRAIN = "drain"

    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.CHANGE)
    state = models.CharField(max_length=12, choices=State.choices, default=State.RUNNING, db_index=True)
    backwards = models.BooleanField(default=False)  # its steps lead back to what was before
    plan = models.JSONField(default=dict)  # the preview it was applied with
    moves = models.JSONField(default=list)  # those of the preview that change something, with before and after
    steps = models.JSONField(default=list)  # what was and is done, newest last; see services.steps
    reason = models.TextField(blank=True)
    force = models.BooleanField(default=False)
    version = models.BigIntegerField()  # that it was planned on
    message = models.TextField(blank=True)  # why it waits or stopped
    held_since = models.DateTimeField(null=True)  # since when it could take no step
    undoes = models.OneToOneField("self", null=True, on_delete=models.PROTECT, related_name="undone_by")
    node = models.ForeignKey(Node, null=True, on_delete=models.SET_NULL, related_name="+")  # drained at the end
    node_drain_s = models.FloatField(null=True)
    # who, for the audit events of the steps
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    actor_name = models.CharField(max_length=150)
    source = models.CharField(max_length=8)
    request_id = models.CharField(max_length=64, blank=True)
    address = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"change {self.pk}"

    @property
    def is_open(self) -> bool:
        return self.state in (self.State.RUNNING, self.State.STOPPED)


class BrakeRow(models.Model):
    """One row: what was last found of nodes that fell silent together, so that all processes agree on it."""

    # brake
    on = models.BooleanField(default=False)
    since = models.DateTimeField(null=True)  # when it came on
    looked_at = models.DateTimeField(null=True)
    memory = models.JSONField(default=dict)  # domain.quorum.Memory
    # services
    released_since = models.DateTimeField(null=True)  # the `since` that was released; another loss is not
    released_until = models.DateTimeField(null=True)
    released_by = models.CharField(max_length=150, blank=True)
    release_reason = models.TextField(blank=True)

    def __str__(self) -> str:
        return "the brake"
