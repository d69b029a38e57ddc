from django.urls import path

from controlplane.api import live, samples

urlpatterns = [
    path("live", live.Live.as_view(), name="live"),
    path("samples", samples.Samples.as_view(), name="samples"),
    path("partitions/<int:pk>/logs", live.PartitionLogs.as_view(), name="partition-logs"),
]
