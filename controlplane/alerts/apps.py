from django.apps import AppConfig
from django.db.models.signals import post_migrate


class AlertsConfig(AppConfig):
    name = "controlplane.alerts"

    def ready(self) -> None:
        from controlplane.alerts.rules import ensure_rows

        post_migrate.connect(ensure_rows, sender=self)
