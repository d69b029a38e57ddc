"""Where vLLM engines send the spans of requests: where OpenTelemetry's own variables in the agent's environment say, as
they do for a gateway. vLLM wants it as an argument, and speaks gRPC unless it is told otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FLAG = "--otlp-traces-endpoint"
LACKING = "vLLM's environment lacks OpenTelemetry, and it would not start; install opentelemetry-exporter-otlp there"
HTTP = "http/protobuf"
ENV = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_SERVICE_NAME")  # read once an engine exports, not at an import
SERVICE = "forebay-engine"


@dataclass(frozen=True, slots=True)
class Traces:
    """`endpoint` is the whole URL for HTTP, with its path; host and port for gRPC."""

    endpoint: str
    protocol: str
    service: str = SERVICE

    @classmethod
    def configured(cls, environ: Mapping[str, str]) -> Traces | None:
        """https://opentelemetry.io/docs/specs/otel/protocol/exporter/: one for traces is taken as it is, a general one
        is the base of the path for HTTP."""
        if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return None
        told = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        protocol = told or HTTP
        own, base = (environ.get(f"OTEL_EXPORTER_OTLP_{name}ENDPOINT", "").strip() for name in ("TRACES_", ""))
        if not own and not base:
            return None
        endpoint = own or (f"{base.rstrip('/')}/v1/traces" if protocol == HTTP else base)
        return cls(endpoint, protocol, environ.get("OTEL_SERVICE_NAME") or SERVICE)

    def args(self) -> tuple[str, ...]:
        return (FLAG, self.endpoint)

    def env(self) -> dict[str, str]:
        return dict(zip(ENV, (self.protocol, self.service), strict=True))
