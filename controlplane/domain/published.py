"""What makers publish of their GPUs: dense bf16 matmul rate and memory bandwidth, by the name that NVML gives.

Rates are without sparsity and, on GeForce, with fp32 accumulation. A GPU that is not here is compared with its siblings
alone; so is a slice (MIG), which has a share of its own of both.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Published:
    bf16_tflops: float
    memory_gbs: float


PUBLISHED = {
    # NVIDIA A100 Tensor Core GPU datasheet (2021), A100 40GB datasheet (2020)
    "NVIDIA A100-SXM4-40GB": Published(312, 1555),
    "NVIDIA A100-PCIE-40GB": Published(312, 1555),
    "NVIDIA A100-SXM4-80GB": Published(312, 2039),
    "NVIDIA A100 80GB PCIe": Published(312, 1935),
    # NVIDIA A30, A10 and A40 datasheets (2021)
    "NVIDIA A30": Published(165, 933),
    "NVIDIA A10": Published(125, 600),
    "NVIDIA A40": Published(149.7, 696),
    # NVIDIA H100 datasheet (2023, 2024): 1979, 1513 and 1671 with sparsity
    "NVIDIA H100 80GB HBM3": Published(989.4, 3350),
    "NVIDIA H100 PCIe": Published(756, 2000),
    "NVIDIA H100 NVL": Published(835.5, 3900),
    # NVIDIA H200 datasheet (2024)
    "NVIDIA H200": Published(989.4, 4800),
    "NVIDIA H200 NVL": Published(835.5, 4800),
    # NVIDIA L4, L40 and L40S datasheets (2023)
    "NVIDIA L4": Published(121, 300),
    "NVIDIA L40": Published(181, 864),
    "NVIDIA L40S": Published(362, 864),
    # NVIDIA HGX B200 datasheet (2024): 4.5 PFLOP/s with sparsity
    "NVIDIA B200": Published(2250, 8000),
    # NVIDIA Ampere GA102 (2021), Ada (2023) and RTX Blackwell (2025) architecture white papers
    "NVIDIA GeForce RTX 3090": Published(71, 936),
    "NVIDIA GeForce RTX 4090": Published(165.2, 1008),
    "NVIDIA GeForce RTX 5090": Published(209.5, 1792),
}


def published(name: str) -> Published | None:
    return PUBLISHED.get(name)
