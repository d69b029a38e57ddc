from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

MOST = 0.99


def as_the_rate(apps: Apps, _editor: BaseDatabaseSchemaEditor) -> None:
    """Until now the one level was of both."""
    for row in apps.get_model("scaling", "ScalingPolicy").objects.all():
        row.lengths_level = min(row.level, MOST)
        row.save(update_fields=["lengths_level"])


class Migration(migrations.Migration):
    dependencies = [
        ("scaling", "0005_compared_rate"),
    ]

    operations = [
        migrations.AddField(
            model_name="scalingpolicy",
            name="lengths_level",
            field=models.FloatField(default=0.95),
        ),
        migrations.RunPython(as_the_rate, migrations.RunPython.noop),
    ]
