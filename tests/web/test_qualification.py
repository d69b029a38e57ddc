"""The node's page of what its GPUs were measured to be, and what people do about it there."""

from __future__ import annotations

import re

from django.urls import reverse

from controlplane.audit.models import AuditEvent
from controlplane.fleet.models import Gpu, GpuQualification, Node
from tests import factories
from tests.fleet.reporting import tell
from tests.web.conftest import Clients
from workers.qualification import Figures, Qualification, QualifyState, Soak


def measured_node() -> tuple[Node, list[Gpu]]:
    """Four of a kind: three alike, one slow and hot, and a fifth that was never measured."""
    node = factories.make_node("alpha")
    gpus = factories.make_gpus(node, 4, kind="nvidia", name="NVIDIA L4")
    tell(node)
    said = [
        Qualification(
            id=str(row.pk), gpu=row.gpu.uuid, state=QualifyState.DONE, temperature_c=61 + place,
            throttle="SwThermalSlowdown" if place == 3 else "",
            figures=Figures(torch="2.9.0", bf16_tflops=rate, memory_gbs=251, missing=("peer_bandwidth: out of time",),
                            soak=Soak(seconds=30, drift=0.004, checks=60, mismatches=0)),
        )
        for place, (row, rate) in enumerate(
            zip(GpuQualification.objects.order_by("pk"), (98.5, 99.0, 97.9, 60.5), strict=True)
        )
    ]  # fmt: skip
    tell(node, qualifications=tuple(said), driver="NVML 580 / CUDA 13.0")
    return node, gpus


def test_figures_stand_beside_those_published_and_the_siblings(as_role: Clients) -> None:
    node, gpus = measured_node()
    factories.make_gpus(node, 1, kind="nvidia", name="NVIDIA L4")
    page = as_role("viewer").get(reverse("web:node", args=[node.pk])).content.decode()
    devices, section = page[: page.index('id="qualification"')], page[page.index('id="qualification"') :]
    assert devices.count(">below the bar<") == 1 and f'href="#q{gpus[3].pk}"' in devices
    assert section.count(">fit<") == 3 and section.count(">below the bar<") == 1
    assert "98.5 TFLOP/s" in section and "81% of 121 published" in section
    assert re.search(r'61% of 98.5, the median of 3 others <span class="nowrap">\(z -\d', section)
    assert "Bf16 matmul: 60.5 TFLOP/s is 50% of what is published (121)." in section
    assert "torch 2.9.0, NVML 580 / CUDA 13.0; 30 s of work: 0 of 60 results differed, rate steady, 64 °C at" in section
    assert "held down by SwThermalSlowdown" in section and "Not measured: peer_bandwidth: out of time" in section
    assert ">never measured<" in section and "<form" not in section[: section.index("</section>")]


def test_people_measure_accept_and_take_back(as_role: Clients) -> None:
    node, gpus = measured_node()
    client, slow = as_role("operator"), gpus[3]
    url = reverse("web:node", args=[node.pk])

    refused = client.post(reverse("web:gpu-accept", args=[slow.pk]), {"reason": ""}, follow=True).content.decode()
    assert "Nothing was changed" in refused and Gpu.objects.get(pk=slow.pk).flag
    page = client.post(reverse("web:gpu-accept", args=[slow.pk]), {"reason": "drafts"}, follow=True).content.decode()
    assert "alpha/gpu3 may be used as it is." in page and ">accepted<" in page and "<q>drafts</q>" in page
    assert reverse("web:gpu-unaccept", args=[slow.pk]) in page, "offered as undo, and as a button"
    client.post(reverse("web:gpu-unaccept", args=[slow.pk]))
    assert Gpu.objects.get(pk=slow.pk).flag

    page = client.post(reverse("web:node-qualify", args=[node.pk]), follow=True).content.decode()
    assert "4 GPUs are to be measured" in page and page.count(">wanted<") == 4 and "every 3s" in page
    client.post(reverse("web:gpu-withdraw", args=[slow.pk]))
    part = client.get(reverse("web:node-qualification", args=[node.pk])).content.decode()
    assert part.count(">wanted<") == 3 and part.count(">below the bar<") == 1
    client.post(reverse("web:gpu-qualify", args=[slow.pk]))
    assert GpuQualification.objects.filter(state="asked").count() == 4
    trail = client.get(reverse("web:activity")).content.decode()
    assert "did not pass its qualification" in trail and "accepted, as it is," in trail
    assert AuditEvent.objects.filter(verb="accept-gpu", reason="drafts").exists()
    assert client.get(url).status_code == 200
