from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("scaling", "0004_switching"),
    ]

    operations = [
        migrations.AddField(
            model_name="lanelook",
            name="other_rate",
            field=models.FloatField(null=True),
        ),
    ]
