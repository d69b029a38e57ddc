from django.apps import AppConfig


class ControlplaneConfig(AppConfig):
    """The project itself as an app, so that its management commands are found."""

    name = "controlplane"
