"""What the live view, the samples and the logs look like, for the OpenAPI schema. Null is unknown, never zero."""

from __future__ import annotations

from rest_framework import serializers


def _figure(text: str = "") -> serializers.FloatField:
    return serializers.FloatField(allow_null=True, help_text=text)


def _whole(text: str = "") -> serializers.IntegerField:
    return serializers.IntegerField(allow_null=True, help_text=text)


class Named(serializers.Serializer):
    id = serializers.IntegerField()
    name = serializers.CharField()


class LiveHost(serializers.Serializer):
    cpu_utilization = _figure("0 to 1")
    cpu_count = serializers.IntegerField()
    memory_bytes = serializers.IntegerField()
    memory_used_bytes = serializers.IntegerField()
    disk_free_bytes = _whole("Where the models lie.")


class LiveGpu(serializers.Serializer):
    id = serializers.IntegerField()
    uuid = serializers.CharField()
    index = serializers.IntegerField()
    kind = serializers.CharField(help_text="nvidia, mig, cpu or simulated")
    name = serializers.CharField()
    memory_bytes = serializers.IntegerField()
    memory_used_bytes = _whole()
    utilization = _figure("0 to 1")
    power_w = _figure()
    temperature_c = _figure()
    sm_clock_mhz = _figure()
    health = serializers.CharField(help_text="ok, degraded or lost")
    health_detail = serializers.CharField(allow_blank=True)
    foreign = serializers.BooleanField(help_text="A process of somebody else's is on it.")
    flag = serializers.CharField(allow_blank=True, help_text="Why it did not pass its qualification.")
    present = serializers.BooleanField(help_text="In the node's last report.")
    partition = _whole("Id of the partition it lies in.")


class LiveEngine(serializers.Serializer):
    running = _figure("Requests being served.")
    waiting = _figure("Requests in the engine's queue.")
    kv_usage = _figure("0 to 1")
    prompt_tps = _figure("Prompt tokens a second.")
    generation_tps = _figure("Generated tokens a second.")
    kv_in_tps = _figure("Prompt tokens a second whose KV came by transfer.")
    ttft_ms = _figure("Mean of the last minute.")
    itl_ms = _figure("Mean of the last minute.")
    kv_tokens = _figure("That its KV cache holds when it is full.")


class LivePartition(serializers.Serializer):
    id = serializers.IntegerField()
    name = serializers.CharField()
    gpus = serializers.ListField(child=serializers.IntegerField(), help_text="Ids, in the order of their index.")
    deployment = Named(allow_null=True)
    role = serializers.CharField(allow_null=True)
    overflow = serializers.BooleanField(help_text="The pool lends it to a dedicated deployment, and takes it back.")
    status = serializers.CharField(help_text="Derived from what is desired, what the agent says, and the clock.")
    phase = serializers.CharField(allow_null=True, help_text="What the agent says of the replica.")
    confirmed = serializers.BooleanField(help_text="The replica is ready, and exactly what is desired.")
    verified = serializers.BooleanField(help_text="It answered a gateway's own request, at this generation.")
    verify_message = serializers.CharField(allow_blank=True, help_text="Why a gateway's own request failed.")
    generation = serializers.IntegerField()
    observed_generation = serializers.IntegerField()
    since_s = _figure("How long the phase has lasted.")
    restarts = serializers.IntegerField()
    message = serializers.CharField(allow_blank=True)
    ready_after_s = _figure("Measured: start to ready.")
    endpoint = serializers.CharField(allow_null=True, required=False, help_text="For operators only.")
    engine = LiveEngine(allow_null=True)
    memory_bytes = _whole("Of the engine's process tree.")


class LiveDrain(serializers.Serializer):
    """How far a drain is."""

    began_at = _figure("Unix seconds.")
    deadline_at = _figure("Unix seconds: when the last of its engines is ended, idle or not. null: nothing runs.")
    partitions_left = serializers.IntegerField(help_text="With a process.")
    returns_to = serializers.ChoiceField(["ready", "cordoned"], help_text="What cancelling the drain goes back to.")
    in_flight = _whole("Requests running or waiting on those that tell.")


class LiveNode(serializers.Serializer):
    id = serializers.IntegerField()
    name = serializers.CharField()
    status = serializers.CharField(help_text="ready, silent, cordoned, draining, drained, revoked or never_seen")
    schedulable = serializers.BooleanField()
    draining = serializers.BooleanField()
    drain = LiveDrain(allow_null=True, help_text="null: it does not drain.")
    age_s = _figure("Since its last report.")
    period_s = serializers.FloatField(help_text="How often it reports.")
    skew_s = _figure("Its clock minus the server's.")
    simulated = serializers.BooleanField()
    generation = serializers.IntegerField()
    observed_generation = serializers.IntegerField()
    labels = serializers.DictField()
    agent_version = serializers.CharField(allow_blank=True)
    engine_version = serializers.CharField(allow_blank=True)
    driver = serializers.CharField(allow_blank=True)
    host = LiveHost(allow_null=True)
    gpus = LiveGpu(many=True)
    partitions = LivePartition(many=True)


class GpuCounts(serializers.Serializer):
    total = serializers.IntegerField()
    assigned = serializers.IntegerField()
    idle = serializers.IntegerField()
    unhealthy = serializers.IntegerField()


class NodeCounts(serializers.Serializer):
    total = serializers.IntegerField()
    silent = serializers.IntegerField()


class Percentiles(serializers.Serializer):
    p50 = _figure()
    p95 = _figure()


class LiveSummary(serializers.Serializer):
    gpus = GpuCounts()
    nodes = NodeCounts()
    active_models = _whole()
    rps = _figure("Requests a second.")
    ttft_ms = Percentiles()
    itl_ms = Percentiles()
    tokens_out_per_s = _figure()
    window_s = _figure("What the request figures are taken over.")


class BrakeShape(serializers.Serializer):
    """Nothing is rescheduled by itself while it is on."""

    on = serializers.BooleanField(help_text="tripped, and not released.")
    tripped = serializers.BooleanField(help_text="Many nodes are silent at once.")
    cause = serializers.ChoiceField(
        ["", "mass-loss", "no-reports", "settling"],
        help_text="no-reports: none is heard. settling: most are back, and have not been for long.",
    )
    silent = Named(many=True)
    heard = serializers.IntegerField(help_text="Nodes that are heard, of those that count.")
    counted = serializers.IntegerField(help_text="Nodes heard within the hour before; draining ones don't count.")
    since = _figure("Unix seconds. null: it is off.")
    released_until = _figure("Unix seconds. null: it is not released.")
    released_by = serializers.CharField(allow_blank=True)
    text = serializers.CharField(allow_blank=True, help_text="The same for people.")


class LiveChange(serializers.Serializer):
    """A change that is not at its end, in short."""

    id = serializers.IntegerField()
    kind = serializers.CharField(help_text="change, undo or drain")
    state = serializers.CharField(help_text="running or stopped")
    actor = serializers.CharField()
    reason = serializers.CharField(allow_blank=True)
    message = serializers.CharField(allow_blank=True, help_text="Why it waits or stopped.")
    steps_done = serializers.IntegerField()
    steps_total = serializers.IntegerField()
    partitions = serializers.ListField(child=serializers.IntegerField(), help_text="Ids of those that it moves.")


class LiveShape(serializers.Serializer):
    seq = serializers.IntegerField(help_text="Number of the last frame this holds.")
    epoch = serializers.CharField(allow_blank=True, help_text="Frames of another epoch do not continue this.")
    at = serializers.FloatField(help_text="Unix seconds; all ages are at this moment.")
    source = serializers.ChoiceField(["live", "database"], help_text="database: the last recorded figures stand in.")
    nodes = LiveNode(many=True)
    summary = LiveSummary()
    brake = BrakeShape()
    version = serializers.IntegerField(help_text="Of the fleet: counts the changes that people and plans make.")
    changes = LiveChange(many=True)


class Series(serializers.Serializer):
    id = _whole("Of the GPU, or of the partition. null: of all together.")
    label = serializers.CharField()
    points = serializers.ListField(
        child=serializers.ListField(child=_figure(), min_length=2, max_length=2),
        help_text="[unix seconds at the step's start, mean or null where nothing is known].",
    )


class Band(serializers.Serializer):
    label = serializers.CharField()
    points = serializers.ListField(
        child=serializers.ListField(child=_figure(), min_length=4, max_length=4),
        help_text="[unix seconds at the step's start, p10, p50, p90], the three null where nothing is known.",
    )


class Mark(serializers.Serializer):
    at = serializers.FloatField()
    text = serializers.CharField()
    kind = serializers.CharField(help_text="The event's verb.")


class SamplesShape(serializers.Serializer):
    metric = serializers.CharField()
    unit = serializers.CharField()
    step = serializers.IntegerField(help_text="Seconds; may be more than asked for, to keep to 600 points.")
    series = Series(many=True, help_text="Empty for a band.")
    bands = Band(many=True, help_text="Empty but for shape=band.")
    marks = Mark(many=True)

    def get_fields(self) -> dict[str, serializers.Field]:
        ends = {name: serializers.IntegerField(help_text="Unix seconds.") for name in ("from", "to")}
        return {**super().get_fields(), **ends}


class LogShape(serializers.Serializer):
    offset = serializers.IntegerField(help_text="Byte of the log file at which the text starts.")
    next_offset = serializers.IntegerField(help_text="Ask from here next.")
    text = serializers.CharField(allow_blank=True)
    levels = serializers.CharField(
        allow_blank=True, help_text="One letter for each line of the text: d, i, w or e for debug to error."
    )
    at = _figure("Unix seconds: when the last of it came.")
    state = serializers.ChoiceField(
        ["live", "waiting", "silent"], help_text="waiting: asked for, not here yet. silent: the node does not report."
    )


class LogLineShape(serializers.Serializer):
    """A line, or how the stream is: live, waiting, unavailable (it is tried again), ended."""

    offset = serializers.IntegerField(required=False)
    level = serializers.CharField(required=False)
    text = serializers.CharField(required=False, allow_blank=True)
    state = serializers.CharField(required=False)
    next_offset = serializers.IntegerField(required=False)


class ProcessShape(serializers.Serializer):
    name = serializers.CharField()
    kind = serializers.ChoiceField(["web", "gateway", "worker"])
    logs = serializers.CharField(help_text="Where its log is read.")


class ProcessesShape(serializers.Serializer):
    results = ProcessShape(many=True)
