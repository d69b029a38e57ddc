from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("fleet", "0012_learned_keep_alives")]

    operations = [
        migrations.RemoveField(model_name="poolhint", name="chance"),
        migrations.AddField(model_name="poolhint", name="rates", field=models.JSONField(null=True)),
        migrations.AddField(model_name="poolhint", name="idle_since", field=models.DateTimeField(null=True)),
        migrations.AddField(model_name="poolhint", name="kept", field=models.FloatField(null=True)),
        migrations.AddField(model_name="activation", name="came_at", field=models.DateTimeField(null=True)),
    ]
