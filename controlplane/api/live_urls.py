from django.urls import path

from controlplane.api import live

urlpatterns = [
    path("live", live.Live.as_view(), name="live"),
    path("samples", live.Samples.as_view(), name="samples"),
    path("partitions/<int:pk>/logs", live.PartitionLogs.as_view(), name="partition-logs"),
]
