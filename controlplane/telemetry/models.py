"""Samples over time. Written only by telemetry.services."""

from __future__ import annotations

from django.db import models

from controlplane.fleet.models import Gpu, Partition


class GpuSample(models.Model):
    """Mean of one GPU over a sampling window (settings.SAMPLE_EVERY_S). Null: unknown in that window."""

    gpu = models.ForeignKey(Gpu, on_delete=models.CASCADE, related_name="samples")
    at = models.DateTimeField()  # start of the window
    utilization = models.FloatField(null=True)  # 0..1
    memory_used_bytes = models.BigIntegerField(null=True)
    power_w = models.FloatField(null=True)
    temperature_c = models.FloatField(null=True)

    class Meta:
        indexes = [models.Index(fields=["gpu", "at"]), models.Index(fields=["at"])]


class EngineSample(models.Model):
    """One engine over a sampling window: gauges as means, counters as rates per second."""

    partition = models.ForeignKey(Partition, on_delete=models.CASCADE, related_name="samples")
    at = models.DateTimeField()  # start of the window
    running = models.FloatField(null=True)
    waiting = models.FloatField(null=True)
    kv_usage = models.FloatField(null=True)
    prompt_tps = models.FloatField(null=True)
    generation_tps = models.FloatField(null=True)
    ttft_ms = models.FloatField(null=True)  # mean over the window
    itl_ms = models.FloatField(null=True)

    class Meta:
        indexes = [models.Index(fields=["partition", "at"]), models.Index(fields=["at"])]
