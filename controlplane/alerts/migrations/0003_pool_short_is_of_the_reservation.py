from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

WAITS, SHORT = "pool-waiting", "pool-short"


def rename(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """What `pool-short` was, a model that waits for a slot, is a rule of its own; the key is the reservation's now."""
    _move(apps, SHORT, WAITS)


def rename_back(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Of a reservation nothing was told before."""
    for model in ("Alert", "Silence"):
        apps.get_model("alerts", model).objects.filter(rule=SHORT).delete()
    _move(apps, WAITS, SHORT)


def _move(apps: Apps, before: str, after: str) -> None:
    """A row that is there under the new key is one that a process of the other version made meanwhile, by default."""
    rules = apps.get_model("alerts", "AlertRule").objects
    if (mine := rules.filter(key=before).first()) is not None:
        rules.filter(key=after).delete()
        rules.filter(pk=mine.pk).update(key=after)
    for model in ("Alert", "Silence"):
        apps.get_model("alerts", model).objects.filter(rule=before).update(rule=after)


class Migration(migrations.Migration):
    dependencies = [("alerts", "0002_pool_is_measured")]

    operations = [migrations.RunPython(rename, rename_back)]
