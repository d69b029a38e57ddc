"""PostgreSQL: the raw and the minute's rows move into a table a day. telemetry.days makes and drops them from now on."""

from datetime import timedelta

from django.db import migrations

KEYS = {
    "telemetry_gpusample": "id",
    "telemetry_enginesample": "id",
    "telemetry_gpuminute": "gpu_id, at",
    "telemetry_engineminute": "partition_id, at, deployment_id",
}


def split(apps, schema_editor):
    each_table(schema_editor, by_day=True)


def join(apps, schema_editor):
    each_table(schema_editor, by_day=False)


def each_table(schema_editor, *, by_day):
    if schema_editor.connection.vendor != "postgresql":
        return
    with schema_editor.connection.cursor() as cursor:
        for table, key in KEYS.items():
            move(cursor, table, key, by_day)


def move(cursor, table, key, by_day):
    """All rows into a new table with the old one's columns, key, indexes and numbers."""
    old, indexes = f"{table}_old", others(cursor, table)
    cursor.execute(f"ALTER TABLE {table} RENAME TO {old}")
    cursor.execute(f"ALTER TABLE {old} DROP CONSTRAINT {primary(cursor, old)}")
    for name, _ in indexes:
        cursor.execute(f"DROP INDEX {name}")
    like = f"CREATE TABLE {table} (LIKE {old} INCLUDING DEFAULTS INCLUDING IDENTITY)"
    cursor.execute(f"{like} PARTITION BY RANGE (at)" if by_day else like)
    if by_day:
        make_days(cursor, table, old)
    cursor.execute(f"INSERT INTO {table} SELECT * FROM {old}")
    if key == "id":
        last = f"SELECT COALESCE(MAX(id), 0) + 1 FROM {old}"
        cursor.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), ({last}), false)")
    cursor.execute(f"DROP TABLE {old}")
    cursor.execute(f"ALTER TABLE {table} ADD PRIMARY KEY ({'id, at' if by_day and key == 'id' else key})")
    for _, made in indexes:
        cursor.execute(made)


def make_days(cursor, table, old):
    cursor.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")
    cursor.execute(f"SELECT DISTINCT (at AT TIME ZONE 'UTC')::date FROM {old}")
    for (day,) in cursor.fetchall():
        within = [f"{moment} 00:00:00+00" for moment in (day, day + timedelta(days=1))]
        name = f"{table}_{day:%Y%m%d}"
        cursor.execute(f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM (%s) TO (%s)", within)


def others(cursor, table):
    """Its indexes but that of the key, and how each was made."""
    sql = "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = %s::regclass"
    cursor.execute(f"{sql} AND NOT indisprimary", [table])
    return [(name, made.replace(" ON ONLY ", " ON ")) for name, made in cursor.fetchall()]


def primary(cursor, table):
    cursor.execute("SELECT conname FROM pg_constraint WHERE contype = 'p' AND conrelid = %s::regclass", [table])
    return cursor.fetchone()[0]


class Migration(migrations.Migration):
    dependencies = [("telemetry", "0003_engines_rows_by_time")]

    operations = [migrations.RunPython(split, join)]
