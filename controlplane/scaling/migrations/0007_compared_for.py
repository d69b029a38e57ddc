from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("scaling", "0006_lengths_level"),
    ]

    operations = [
        migrations.AddField(
            model_name="lanelook",
            name="other_basis",
            field=models.CharField(blank=True, default="", max_length=100),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="lanelook",
            name="other_missed",
            field=models.BooleanField(default=False),
        ),
    ]
