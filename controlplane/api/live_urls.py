from django.urls import path

from controlplane.api import live, logs, samples

urlpatterns = [
    path("live", live.Live.as_view(), name="live"),
    path("samples", samples.Samples.as_view(), name="samples"),
    path("partitions/<int:pk>/logs", logs.PartitionLogs.as_view(), name="partition-logs"),
    path("nodes/<int:pk>/logs", logs.NodeLogs.as_view(), name="node-logs"),
    path("processes", logs.Processes.as_view(), name="processes"),
    path("processes/<str:name>/logs", logs.ProcessLogs.as_view(), name="process-logs"),
]
