"""Run a gateway process: the OpenAI API over the fleet's engines."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from controlplane.gateway.run import run
from controlplane.telemetry import process_log


class Command(BaseCommand):
    requires_system_checks: list[str] = []  # they load the web's URLs, which this process never serves
    help = "Serve the OpenAI API (data plane) until SIGTERM"

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8001)

    def handle(self, *args: Any, host: str, port: int, **options: Any) -> None:
        process_log.begin("gateway", port)
        run(host, port)
