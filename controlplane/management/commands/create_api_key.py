"""Make a key that opens the gateway, from the shell."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from controlplane.audit.services import Actor
from controlplane.gateway import services as gateway


class Command(BaseCommand):
    help = "Make an API key for the gateway; prints it once"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="what it is for")
        parser.add_argument("--deployment", action="append", default=[], help="name it may use; all when not given")
        parser.add_argument("--requests-per-minute", type=int)

    def handle(self, *args: Any, **options: Any) -> None:
        _, plain = gateway.create_key(
            name=options["name"],
            deployments=tuple(options["deployment"]),
            requests_per_minute=options["requests_per_minute"],
            actor=Actor.system("manage.py create_api_key"),
        )
        self.stdout.write(plain)
