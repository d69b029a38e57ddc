"""Samples over time, in three widths. Raw ones are written by telemetry.recorder alone, the others by telemetry.rollup
from narrower ones. A row that is not there is a gap; a null is unknown; neither is ever zero."""

from __future__ import annotations

from django.db import models

from controlplane.fleet.models import Gpu, Partition

# Rows are many: the database neither looks up each one's owner nor deletes them with it. They stay until their time is
# over, since what a deployment did is told by partitions that may be gone.
_OWNER = {"on_delete": models.DO_NOTHING, "db_constraint": False, "db_index": False}


class GpuFigures(models.Model):
    """Means of one GPU over the time that begins at `at`, of `reports` reports."""

    at = models.DateTimeField()
    utilization = models.FloatField(null=True)  # 0..1
    memory_used_bytes = models.BigIntegerField(null=True)
    power_w = models.FloatField(null=True)
    temperature_c = models.FloatField(null=True)
    reports = models.IntegerField(default=1)

    class Meta:
        abstract = True


class EngineFigures(models.Model):
    """One engine over the time that begins at `at`: gauges as means, counters as rates per second. A row that two web
    processes share is two rows in the raw table, each true: means are weighed by `reports`, rates by `covered_s`."""

    at = models.DateTimeField()
    deployment_id = models.BigIntegerField(default=0)  # whose engine it was; 0: none is known. It may be gone since
    running = models.FloatField(null=True)
    waiting = models.FloatField(null=True)
    kv_usage = models.FloatField(null=True)
    prompt_tps = models.FloatField(null=True)
    generation_tps = models.FloatField(null=True)
    kv_in_tps = models.FloatField(null=True)  # prompt tokens whose KV came by transfer
    computed_tps = models.FloatField(null=True)  # prompt tokens that it prefilled itself
    requests_ps = models.FloatField(null=True)
    preemptions_ps = models.FloatField(null=True)
    prefix_queries_ps = models.FloatField(null=True)  # tokens looked up
    prefix_hits_ps = models.FloatField(null=True)
    external_queries_ps = models.FloatField(null=True)
    external_hits_ps = models.FloatField(null=True)
    kv_bytes_ps = models.FloatField(null=True)
    kv_transfers_ps = models.FloatField(null=True)
    kv_transfer_s_ps = models.FloatField(null=True)
    kv_failures_ps = models.FloatField(null=True)
    kv_expired_ps = models.FloatField(null=True)
    ttft_ms = models.FloatField(null=True)  # mean
    itl_ms = models.FloatField(null=True)
    latencies = models.TextField(null=True)  # telemetry.latencies: the histograms' growth
    reports = models.IntegerField(default=1)
    covered_s = models.FloatField(default=1.0)  # what the rates were taken over

    class Meta:
        abstract = True


class GpuSample(GpuFigures):
    """A sampling window (settings.SAMPLE_EVERY_S)."""

    gpu = models.ForeignKey(Gpu, related_name="samples", **_OWNER)

    class Meta:
        indexes = [models.Index(fields=["gpu", "at"]), models.Index(fields=["at"])]


class EngineSample(EngineFigures):
    """A sampling window (settings.SAMPLE_EVERY_S)."""

    partition = models.ForeignKey(Partition, related_name="samples", **_OWNER)

    class Meta:
        indexes = [
            models.Index(fields=["partition", "at"]),
            models.Index(fields=["deployment_id", "at"]),
            models.Index(fields=["at"]),
        ]


class GpuMinute(GpuFigures):
    pk = models.CompositePrimaryKey("gpu_id", "at")
    gpu = models.ForeignKey(Gpu, related_name="+", **_OWNER)


class GpuHour(GpuFigures):
    pk = models.CompositePrimaryKey("gpu_id", "at")
    gpu = models.ForeignKey(Gpu, related_name="+", **_OWNER)


class EngineMinute(EngineFigures):
    pk = models.CompositePrimaryKey("partition_id", "at", "deployment_id")
    partition = models.ForeignKey(Partition, related_name="+", **_OWNER)

    class Meta:
        indexes = [models.Index(fields=["deployment_id", "at"]), models.Index(fields=["at"])]


class EngineHour(EngineFigures):
    pk = models.CompositePrimaryKey("partition_id", "at", "deployment_id")
    partition = models.ForeignKey(Partition, related_name="+", **_OWNER)

    class Meta:
        indexes = [models.Index(fields=["deployment_id", "at"]), models.Index(fields=["at"])]


class FleetSample(models.Model):
    """All GPUs and engines together over `width_s` seconds: telemetry.fleet_rows says what `figures` hold."""

    pk = models.CompositePrimaryKey("width_s", "at")
    width_s = models.IntegerField()
    at = models.DateTimeField()
    figures = models.TextField()


class Rollup(models.Model):
    """How far the rows of a width are made: all that begin before `upto`."""

    width_s = models.IntegerField(primary_key=True)
    upto = models.DateTimeField()
