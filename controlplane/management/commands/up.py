"""Everything on one machine, under one supervisor: `make run` ends here."""

from __future__ import annotations

import os
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from controlplane.management import machine, valkey
from controlplane.management.steps import Screen, StepFailed


class Command(BaseCommand):
    help = "Run the whole control plane, the gateway and this host's agent; stop them on Ctrl-C"
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        os.umask(0o077)  # the home holds secrets, and so may every log
        try:
            here = machine.read(os.environ, settings.HOME)
        except StepFailed as error:
            Screen().failed(error)
            sys.exit(1)
        if machine.PREPARED not in os.environ:
            # Settings were read before this command could say where the broker is: begin again with all told.
            environ = machine.variables(here, os.environ, valkey_password=valkey.password(here.home))
            os.execve(sys.executable, [sys.executable, *sys.argv], environ)
        os.chdir(settings.BASE_DIR)  # the parts are started by module name

        from controlplane.management.launch import Launch

        sys.exit(Launch(here).run())
