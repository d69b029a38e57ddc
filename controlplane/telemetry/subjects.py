"""What samples are asked of, and whose changes explain them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Q

from controlplane.fleet.models import Deployment, Gpu, Node, Partition, RegisteredModel


@dataclass(frozen=True, slots=True)
class Subject:
    """The GPUs and partitions to draw, and whose changes to mark. With `deployments` the engines are those that served
    them at the time, whatever their partitions do now. `all_of_it`: the fleet, of which nothing is listed here."""

    gpus: tuple[Gpu, ...] = ()
    partitions: tuple[Partition, ...] = ()
    nodes: tuple[int, ...] = ()
    deployments: tuple[int, ...] = ()
    all_of_it: bool = False

    def changes(self) -> Q:
        """Of audit events: those of what this is."""
        if self.all_of_it:
            kinds = ("node", "partition", "gpu", "deployment", "change", "plan", "alert")
            return Q(subject_type__in=kinds)
        whose = Q(subject_type="node", subject_id__in=self.nodes)
        whose |= Q(subject_type="partition", subject_id__in=[partition.pk for partition in self.partitions])
        whose |= Q(subject_type="gpu", subject_id__in=[gpu.pk for gpu in self.gpus])
        if self.deployments:
            whose |= Q(subject_type="deployment", subject_id__in=self.deployments)
        return whose

    def gpu_labels(self) -> dict[int, str]:
        many = len(self.nodes) != 1
        return {gpu.pk: f"{gpu.node.name} {_slot(gpu)}" if many else _slot(gpu) for gpu in self.gpus}

    def partition_labels(self) -> dict[int, str]:
        many = len(self.nodes) != 1
        return {partition.pk: str(partition) if many else partition.name for partition in self.partitions}


def of_fleet() -> Subject:
    return Subject(all_of_it=True)


def of_node(node: Node) -> Subject:
    return Subject(tuple(node.gpus.order_by("index")), tuple(node.partitions.order_by("name")), (node.pk,))


def of_gpu(gpu: Gpu) -> Subject:
    return Subject((gpu,), (gpu.partition,) if gpu.partition else (), (gpu.node_id,))


def of_partition(partition: Partition) -> Subject:
    return Subject(tuple(partition.gpus.order_by("index")), (partition,), (partition.node_id,))


def of_label(name: str, value: str) -> Subject:
    """The nodes that bear the label. Labels are told apart here: a database's look into JSON differs by its kind."""
    nodes = [pk for pk, labels in Node.objects.values_list("pk", "labels") if str(labels.get(name)) == value]
    return _of_nodes(nodes)


def of_deployment(deployment: Deployment) -> Subject:
    return _of_deployments([deployment.pk])


def of_model(model: RegisteredModel) -> Subject:
    return _of_deployments(model.deployments.values_list("pk", flat=True))


def _of_nodes(nodes: list[int]) -> Subject:
    gpus = Gpu.objects.filter(node__in=nodes).select_related("node").defer("node__spec")
    partitions = Partition.objects.filter(node__in=nodes).select_related("node").defer("node__spec")
    return Subject(tuple(gpus), tuple(partitions), tuple(nodes))


def _of_deployments(deployments: Iterable[int]) -> Subject:
    deployments = tuple(deployments)
    partitions = Partition.objects.filter(deployment__in=deployments).select_related("node").defer("node__spec")
    gpus = Gpu.objects.filter(partition__deployment__in=deployments).select_related("node").defer("node__spec")
    nodes = sorted({partition.node_id for partition in partitions})
    # A single node would leave the node's name out of labels; what serves a deployment is told by both.
    return Subject(tuple(gpus), tuple(partitions), tuple(nodes), deployments)


def _slot(gpu: Gpu) -> str:
    return f"CPU slot {gpu.index}" if gpu.kind == "cpu" else f"GPU {gpu.index}"
