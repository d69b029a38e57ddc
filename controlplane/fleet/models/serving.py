"""Models, how they are served, and what serves them."""

from __future__ import annotations

from django.db import models

from controlplane.fleet.models.nodes import Node
from controlplane.fleet.models.owned import Owned


class Role(models.TextChoices):
    """The same values as workers.contract.Role, with labels for people."""

    PREFILL = "prefill"
    DECODE = "decode"
    AGGREGATED = "aggregated"


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


class Deployment(Owned):
    """How a RegisteredModel is served."""

    class Mode(models.TextChoices):
        DEDICATED = "dedicated"
        POOLED = "pooled"

    class PoolShape(models.TextChoices):
        """Of a pooled one: the engines that it is woken as."""

        AGGREGATED = "aggregated"  # one, in one slot
        PAIR = "pair"  # prefill and decode, in two

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
    aggregated_max_requests = models.PositiveIntegerField(null=True, blank=True)
    drain_s = models.PositiveIntegerField(default=120)
    slo_ttft_ms = models.PositiveIntegerField(null=True, blank=True)
    slo_itl_ms = models.PositiveIntegerField(null=True, blank=True)
    min_prefill = models.PositiveIntegerField(default=0)
    max_prefill = models.PositiveIntegerField(null=True, blank=True)
    min_decode = models.PositiveIntegerField(default=0)
    max_decode = models.PositiveIntegerField(null=True, blank=True)
    min_aggregated = models.PositiveIntegerField(default=0)
    max_aggregated = models.PositiveIntegerField(null=True, blank=True)
    overflow = models.BooleanField(default=False)  # dedicated: into a slot of the pool when its own are full
    pool_shape = models.CharField(max_length=10, choices=PoolShape.choices, default=PoolShape.AGGREGATED)
    keep_alive_s = models.PositiveIntegerField(null=True, blank=True)  # in the pool: active so long after a request
    priority = models.SmallIntegerField(default=0)  # in the pool: who may take whose slot
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def is_pair(self) -> bool:
        """Whether the pool wakes it as a prefill and a decode engine, in two slots."""
        return self.mode == self.Mode.POOLED and self.pool_shape == self.PoolShape.PAIR

    @property
    def pool_roles(self) -> tuple[Role, ...]:
        """Of the engines that the pool wakes it as; a slot for each."""
        return (Role.PREFILL, Role.DECODE) if self.is_pair else (Role.AGGREGATED,)

    @property
    def has_limit(self) -> bool:
        """Whether a gateway can tell that its engines are full."""
        limits = (self.prefill_max_requests, self.decode_max_requests, self.aggregated_max_requests)
        return any(limit is not None for limit in limits)


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
    pool = models.BooleanField(default=False)  # set aside for whichever pooled deployment is asked for
    overflow = models.BooleanField(default=False)  # the pool lent it to a dedicated deployment, and takes it back
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
    # qualified: why nothing new is placed on it; "" = fit, accepted, or never measured
    flag = models.CharField(max_length=255, blank=True)
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
