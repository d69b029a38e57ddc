"""What was asked of models over months, and what was said of the time to come. Written by planning's services alone."""

from __future__ import annotations

from django.db import models

from controlplane.fleet.models import Deployment, Partition


class ActivityDay(models.Model):
    """The bursts of requests for one model that began on one day (UTC), packed by planning.packing."""

    class Source(models.TextChoices):
        GATEWAY = "gateway"
        IMPORT = "import"

    model = models.CharField(max_length=120)  # a deployment's name; it outlives the deployment
    day = models.DateField()
    source = models.CharField(max_length=8, choices=Source.choices)
    bursts = models.BinaryField()
    requests = models.BigIntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["day", "model", "source"], name="activity_per_model_and_day")]

    def __str__(self) -> str:
        return f"{self.model} on {self.day}"


class RecordedSpan(models.Model):
    """A time of which it is on record what was asked. Outside of all of them it is not known, which is not none."""

    start = models.DateTimeField()
    end = models.DateTimeField(db_index=True)
    source = models.CharField(max_length=8, choices=ActivityDay.Source.choices)

    class Meta:
        ordering = ["start"]

    def __str__(self) -> str:
        return f"{self.source}: {self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M} UTC"


class Forecast(models.Model):
    """What was said at one moment of the greatest number of active models until `horizon_s` later."""

    at = models.DateTimeField()
    horizon_s = models.PositiveIntegerField()
    keep_alive_s = models.PositiveIntegerField()
    active = models.IntegerField(null=True)  # then; null: nothing was on record
    known_models = models.PositiveIntegerField()
    levels = models.JSONField()
    values = models.JSONField()  # by level, rounded up to whole models
    by_size = models.JSONField(default=list)  # as forecasting.OfSize; empty: every slot is of one GPU
    method = models.CharField(max_length=80)
    shares = models.JSONField(default=dict)  # how much each method counted at the highest level
    recorded_s = models.FloatField()  # of the time before, that it could look at
    replayed = models.BooleanField(default=False)  # said afterwards, from what was on record by `at`
    peak = models.IntegerField(null=True)  # what it came to; null: not over, or nothing was on record

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["horizon_s", "keep_alive_s", "at"], name="forecast_per_moment_and_horizon")
        ]
        indexes = [models.Index(fields=["at"])]

    def __str__(self) -> str:
        return f"{self.at} + {self.horizon_s} s"


class Standing(models.Model):
    """What any number of slots would come to at one keep-alive, by the habits of the last week: the newest alone."""

    keep_alive_s = models.PositiveIntegerField(unique=True)
    at = models.DateTimeField()
    days = models.FloatField()  # that it is from
    models_seen = models.PositiveIntegerField()
    expected = models.FloatField()  # E[active models]
    aegaeon = models.FloatField()  # the same by sum(1 - e^(-lambda T)), for comparison
    activations_per_hour = models.FloatField()
    curve = models.JSONField()  # [slots, share of activations that are cold, mean idle slots], slots rising
    by_size = models.JSONField(default=list)  # as standing.OfSize; empty: every slot is of one GPU

    class Meta:
        ordering = ["keep_alive_s"]

    def __str__(self) -> str:
        return f"keep-alive {self.keep_alive_s} s"


class Comparison(models.Model):
    """Methods on this installation's own history, judged by its last days, or on a trace that was sent. Written by
    planning.comparing alone. What state it is in follows from its columns and the clock."""

    asked_at = models.DateTimeField()
    asked_by = models.CharField(max_length=150)
    begun_at = models.DateTimeField(null=True)
    beat_at = models.DateTimeField(null=True)  # by who works on it
    done = models.PositiveIntegerField(default=0)  # decisions
    of = models.PositiveIntegerField(default=0)
    ended_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=500, blank=True)
    keep_alive_s = models.PositiveIntegerField(default=0)
    result = models.JSONField(null=True)  # as backtests.as_json
    trace_name = models.CharField(max_length=120, blank=True)  # of one that was sent; empty: own history
    question = models.JSONField(default=dict)  # on such a trace, as backtests.Asked
    trace = models.BinaryField(null=True)  # as it was sent, until it is judged

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"comparison of methods {self.pk}"


class EngineProfile(models.Model):
    """What one engine on GPUs of one name was measured to do. Never changed: laws and knee are derived from it."""

    class Source(models.TextChoices):
        """The same values as domain.profiles.Source; what a roofline says is not kept."""

        MEASURED = "measured"  # here, on an engine of this fleet
        IMPORTED = "imported"

    model = models.CharField(max_length=120, db_index=True)  # a registered model's name, where it is of this fleet
    gpu = models.CharField(max_length=255)  # as its agent names it, where it is of this fleet
    tp = models.PositiveIntegerField()
    engine_version = models.CharField(max_length=64, blank=True)
    flags = models.JSONField(default=list)
    source = models.CharField(max_length=8, choices=Source.choices)
    origin = models.CharField(max_length=255, blank=True)  # the table, or the partition
    notes = models.JSONField(default=list)
    kv_tokens = models.PositiveBigIntegerField(null=True)
    max_num_seqs = models.PositiveIntegerField(null=True)
    prefill = models.JSONField()  # [tokens, batch, context, step_ms]
    decode = models.JSONField()  # [concurrency, context, itl_ms]
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.model} on {self.tp} x {self.gpu}"


class CapacityPolicy(models.Model):
    """What is held ready, and against what it is weighed: one row. Written by planning.policy alone."""

    class Aim(models.TextChoices):
        RISK = "risk", "a share of activations may wait"
        PRICES = "prices", "what costs least"

    keep_alive_s = models.PositiveIntegerField()
    aim = models.CharField(max_length=6, choices=Aim.choices, default=Aim.RISK)
    most_cold = models.FloatField()  # the share of activations that may find no slot, under RISK
    gpu_hour_price = models.FloatField(null=True)  # of one GPU, in any currency
    cold_price = models.FloatField(null=True)  # of an activation that waits, in the same
    floors = models.JSONField(default=list)  # lines, as domain.holding reads them
    time_zone = models.CharField(max_length=64, default="UTC")  # in which floors are meant
    version = models.PositiveIntegerField(default=0)  # 0: never changed

    def __str__(self) -> str:
        return "capacity policy"


class ProfileRun(models.Model):
    """The measuring of one running engine. It is begun, told of and ended by the process that does it."""

    class State(models.TextChoices):
        """wanted -> running -> done; running -> failed, also when it falls silent; wanted, running -> cancelled."""

        WANTED = "wanted"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"
        CANCELLED = "cancelled"

    OPEN = (State.WANTED, State.RUNNING)

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="profile_runs")
    partition = models.ForeignKey(Partition, on_delete=models.CASCADE, related_name="profile_runs")
    state = models.CharField(max_length=9, choices=State.choices, default=State.WANTED)
    asked_by = models.CharField(max_length=150)
    asked_at = models.DateTimeField(auto_now_add=True)
    reason = models.CharField(max_length=1000, blank=True)
    beat_at = models.DateTimeField(null=True)  # of the process that measures
    done = models.PositiveIntegerField(default=0)  # steps
    steps = models.PositiveIntegerField(default=0)  # 0: not known yet
    message = models.CharField(max_length=400, blank=True)  # what is measured now, or why nothing was
    ended_at = models.DateTimeField(null=True)
    profile = models.ForeignKey(EngineProfile, null=True, on_delete=models.SET_NULL, related_name="runs")

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["partition"], condition=models.Q(state__in=["wanted", "running"]), name="one_profile_run_a_time"
            )
        ]

    def __str__(self) -> str:
        return f"{self.deployment} on {self.partition}"
