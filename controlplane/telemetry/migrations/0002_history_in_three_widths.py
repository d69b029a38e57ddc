import django.db.models.deletion
from django.db import migrations, models

ROLLED = ("gpuminute", "gpuhour", "engineminute", "enginehour")
RATES = (
    "kv_in_tps",
    "computed_tps",
    "requests_ps",
    "preemptions_ps",
    "prefix_queries_ps",
    "prefix_hits_ps",
    "external_queries_ps",
    "external_hits_ps",
    "kv_bytes_ps",
    "kv_transfers_ps",
    "kv_transfer_s_ps",
    "kv_failures_ps",
    "kv_expired_ps",
)


def owner(to, related_name):
    return models.ForeignKey(
        db_constraint=False,
        db_index=False,
        on_delete=django.db.models.deletion.DO_NOTHING,
        related_name=related_name,
        to=to,
    )


def key(*columns):
    return models.CompositePrimaryKey(*columns, blank=True, editable=False, primary_key=True, serialize=False)


def gpu_figures():
    return [
        ("at", models.DateTimeField()),
        ("utilization", models.FloatField(null=True)),
        ("memory_used_bytes", models.BigIntegerField(null=True)),
        ("power_w", models.FloatField(null=True)),
        ("temperature_c", models.FloatField(null=True)),
        ("reports", models.IntegerField(default=1)),
    ]


def engine_figures():
    gauges = ("running", "waiting", "kv_usage", "prompt_tps", "generation_tps", *RATES, "ttft_ms", "itl_ms")
    return [
        ("at", models.DateTimeField()),
        ("deployment_id", models.BigIntegerField(default=0)),
        *[(name, models.FloatField(null=True)) for name in gauges],
        ("latencies", models.TextField(null=True)),
        ("reports", models.IntegerField(default=1)),
        ("covered_s", models.FloatField(default=1.0)),
    ]


def gpu_table(name):
    columns = [
        ("pk", key("gpu_id", "at")),
        ("gpu", owner("fleet.gpu", "+")),
        *gpu_figures(),
    ]
    return migrations.CreateModel(name=name, fields=columns, options={"abstract": False})


def engine_table(name):
    columns = [
        ("pk", key("partition_id", "at", "deployment_id")),
        ("partition", owner("fleet.partition", "+")),
        *engine_figures(),
    ]
    return migrations.CreateModel(name=name, fields=columns, options={"abstract": False})


def lie_in_order_of_the_key(apps, schema_editor):
    """SQLite: a chart reads the rows of a few owners over a long time, which so lie beside each other."""
    if schema_editor.connection.vendor != "sqlite":
        return
    with schema_editor.connection.cursor() as cursor:
        for name in ROLLED:
            table = f"telemetry_{name}"
            made = cursor.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = %s", [table])
            sql = made.fetchone()[0]
            cursor.execute(f"DROP TABLE {table}")
            cursor.execute(f"{sql} WITHOUT ROWID")


class Migration(migrations.Migration):
    dependencies = [
        ("fleet", "0007_owners"),
        ("telemetry", "0001_initial"),
    ]

    operations = [
        migrations.AlterField("enginesample", "partition", owner("fleet.partition", "samples")),
        migrations.AlterField("gpusample", "gpu", owner("fleet.gpu", "samples")),
        migrations.AddField("gpusample", "reports", models.IntegerField(default=1)),
        migrations.AddField("enginesample", "deployment_id", models.BigIntegerField(default=0)),
        *[migrations.AddField("enginesample", name, models.FloatField(null=True)) for name in RATES],
        migrations.AddField("enginesample", "latencies", models.TextField(null=True)),
        migrations.AddField("enginesample", "reports", models.IntegerField(default=1)),
        migrations.AddField("enginesample", "covered_s", models.FloatField(default=1.0)),
        migrations.AddIndex(
            "enginesample", models.Index(fields=["deployment_id", "at"], name="telemetry_e_deploym_a8c538_idx")
        ),
        gpu_table("GpuMinute"),
        gpu_table("GpuHour"),
        engine_table("EngineMinute"),
        engine_table("EngineHour"),
        migrations.RunPython(lie_in_order_of_the_key, migrations.RunPython.noop),
        migrations.AddIndex(
            "enginehour", models.Index(fields=["deployment_id", "at"], name="telemetry_e_deploym_56b263_idx")
        ),
        migrations.AddIndex(
            "engineminute", models.Index(fields=["deployment_id", "at"], name="telemetry_e_deploym_ded8d2_idx")
        ),
        migrations.CreateModel(
            name="FleetSample",
            fields=[
                ("pk", key("width_s", "at")),
                ("width_s", models.IntegerField()),
                ("at", models.DateTimeField()),
                ("figures", models.TextField()),
            ],
        ),
        migrations.CreateModel(
            name="Rollup",
            fields=[
                ("width_s", models.IntegerField(primary_key=True, serialize=False)),
                ("upto", models.DateTimeField()),
            ],
        ),
    ]
