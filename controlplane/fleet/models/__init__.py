"""Desired and observed state of the fleet. Each column has one writer, named beside it.

desired: fleet.services    published: fleet.publish    observed: fleet.reports    verified: fleet.verified
qualified: fleet.qualified    activations: fleet.services.pool    pool use: fleet.pool_use    weights: fleet.weights
fetching: fleet.fetching    sleeping: fleet.sleeping
"""

from controlplane.fleet.models.changes import BrakeRow, Change, FleetVersion, Revision
from controlplane.fleet.models.holding import HeldWeights, WantedWeights
from controlplane.fleet.models.nodes import JoinToken, Node
from controlplane.fleet.models.pool import Activation, PoolAim, PoolHint, PoolUse
from controlplane.fleet.models.qualifying import GpuQualification
from controlplane.fleet.models.serving import Deployment, GatewayBeat, Gpu, Partition, RegisteredModel, Role
from controlplane.fleet.models.sleeping import Sleeper

__all__ = [
    "Activation",
    "BrakeRow",
    "Change",
    "Deployment",
    "FleetVersion",
    "GatewayBeat",
    "Gpu",
    "GpuQualification",
    "HeldWeights",
    "JoinToken",
    "Node",
    "Partition",
    "PoolAim",
    "PoolHint",
    "PoolUse",
    "RegisteredModel",
    "Revision",
    "Role",
    "Sleeper",
    "WantedWeights",
]
