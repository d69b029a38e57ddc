from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def rename(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """What `pool-short` was, a model that waits for a slot, is a rule of its own; the key is the reservation's now."""
    apps.get_model("alerts", "AlertRule").objects.filter(key="pool-short").update(key="pool-waiting")
    for model in ("Alert", "Silence"):
        apps.get_model("alerts", model).objects.filter(rule="pool-short").update(rule="pool-waiting")


class Migration(migrations.Migration):
    dependencies = [("alerts", "0002_pool_is_measured")]

    operations = [migrations.RunPython(rename, migrations.RunPython.noop)]
