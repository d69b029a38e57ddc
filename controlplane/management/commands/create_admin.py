"""Make an administrator, or give an existing one a new password."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from controlplane.audit.services import Actor
from controlplane.management import accounts


class Command(BaseCommand):
    help = "Make an administrator, or reset one's password; prints the new password once"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username", nargs="?", default="admin")

    def handle(self, *args: Any, username: str, **options: Any) -> None:
        password = accounts.make_admin(username, actor=Actor.system("manage.py create_admin"))
        self.stdout.write(f"{username}: {password}")
