"""What people may do about alerts, one verb each."""

from controlplane.alerts.services.alerts import acknowledge
from controlplane.alerts.services.rules import change_rule
from controlplane.alerts.services.silences import MOST_S, end_silence, silence
from controlplane.alerts.services.targets import change_target, create_target, delete_target, try_target

__all__ = [
    "MOST_S",
    "acknowledge",
    "change_rule",
    "change_target",
    "create_target",
    "delete_target",
    "end_silence",
    "silence",
    "try_target",
]
