from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def switch_on(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """The rule had nothing to measure, and was off with a threshold in slots; nobody could switch it on."""
    apps.get_model("alerts", "AlertRule").objects.filter(key="pool-short", enabled=False).update(
        enabled=True, threshold=30, for_s=0
    )


class Migration(migrations.Migration):
    dependencies = [("alerts", "0001_rules_alerts_and_targets")]

    operations = [migrations.RunPython(switch_on, migrations.RunPython.noop)]
