"""The verbs that change the fleet. Each is one transaction: lock, change, record, publish."""

from controlplane.fleet.services.advancing import advance, advance_all
from controlplane.fleet.services.assignments import assign, preview_assign, release
from controlplane.fleet.services.brakes import MAX_RELEASE_S, release_brake, restore_brake
from controlplane.fleet.services.change_preview import preview_change
from controlplane.fleet.services.changes import Stale, apply_change, inverse_moves, resume_change, roll_back_change
from controlplane.fleet.services.choosing import Shift, choose_moves
from controlplane.fleet.services.deployments import create_deployment, delete_deployment, update_deployment
from controlplane.fleet.services.drains import drain_with_moves, preview_drain
from controlplane.fleet.services.fetching import fetch_weights, unfetch_weights
from controlplane.fleet.services.joining import cancel_join_token, issue_join_token, join, join_command
from controlplane.fleet.services.keeping import set_deployment_owners, set_node_owners, who_can_own
from controlplane.fleet.services.models import check_fit, delete_model, preview_register, read_facts, register_model
from controlplane.fleet.services.nodes import (
    MAX_DEADLINE_S,
    cancel_drain,
    cordon,
    drain,
    forget_gpu,
    label,
    remove_node,
    revoke_node,
    rotate_node_token,
    uncordon,
)
from controlplane.fleet.services.partitions import create_partition, delete_partition, split_node
from controlplane.fleet.services.plans import apply_plan
from controlplane.fleet.services.pool import set_pool
from controlplane.fleet.services.prefetching import prefetch
from controlplane.fleet.services.qualifications import (
    accept_gpu,
    qualify_due,
    qualify_gpu,
    qualify_node,
    unaccept_gpu,
    withdraw_qualification,
)

__all__ = [
    "MAX_DEADLINE_S",
    "MAX_RELEASE_S",
    "Shift",
    "Stale",
    "accept_gpu",
    "advance",
    "advance_all",
    "apply_change",
    "apply_plan",
    "assign",
    "cancel_drain",
    "cancel_join_token",
    "check_fit",
    "choose_moves",
    "cordon",
    "create_deployment",
    "create_partition",
    "delete_deployment",
    "delete_model",
    "delete_partition",
    "drain",
    "drain_with_moves",
    "fetch_weights",
    "forget_gpu",
    "inverse_moves",
    "issue_join_token",
    "join",
    "join_command",
    "label",
    "prefetch",
    "preview_assign",
    "preview_change",
    "preview_drain",
    "preview_register",
    "qualify_due",
    "qualify_gpu",
    "qualify_node",
    "read_facts",
    "register_model",
    "release",
    "release_brake",
    "remove_node",
    "restore_brake",
    "resume_change",
    "revoke_node",
    "roll_back_change",
    "rotate_node_token",
    "set_deployment_owners",
    "set_node_owners",
    "set_pool",
    "split_node",
    "unaccept_gpu",
    "uncordon",
    "unfetch_weights",
    "update_deployment",
    "who_can_own",
    "withdraw_qualification",
]
