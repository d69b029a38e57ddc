"""Bring up everything on one machine, step by step; wait; take it down again."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from django.conf import settings
from django.core.management import call_command

from controlplane.fleet import broker
from controlplane.fleet.models import Node
from controlplane.management import accounts, demo, demo_models, engine_program, local_agent, machine, parts
from controlplane.management.demo_models import DemoModel
from controlplane.management.machine import Machine
from controlplane.management.steps import Screen, Step, StepFailed
from controlplane.management.supervisor import Part, Supervisor


class Launch:
    """One run of `manage.py up`. The main thread starts the parts and waits; the supervisor looks after them."""

    def __init__(self, here: Machine) -> None:
        self.here = here
        self.screen = Screen()
        self.supervisor = Supervisor(self.screen.say)
        self.agent: Part | None = None
        self._password: str | None = None

    def run(self) -> int:
        """0 after a stop that was asked for, 1 after a step that failed."""
        with ExitStack() as held:
            try:
                held.enter_context(_only_one(self.here))
                _stop_on_signals()
                self._up()
                threading.Event().wait()
            except KeyboardInterrupt:
                return 0
            except StepFailed as error:
                self.screen.failed(error)
                return 1
            finally:
                self._down()
        raise AssertionError("waited for ever, yet ended")

    def _up(self) -> None:
        here, screen = self.here, self.screen
        model = _wanted_model(here)
        engine = engine_program.find(os.environ, screen, needed=model is not None)
        folder = demo_models.ensure(model, here.home, engine, screen) if model and engine else None
        machine.require_free_ports(here)
        self._control_plane()
        key = accounts.ensure_api_key(here.home)
        if engine:
            os.environ["FOREBAY_VLLM"] = str(engine.vllm)
        node = self._this_node()
        served = self._serve(model, folder, node, key) if model and folder else None
        self._tell(served, key)

    def _serve(self, model: DemoModel, folder: Path, node: Node, key: str) -> DemoModel | None:
        """The model when it answers. A model that does not is no reason to take the pages down: they can mend it."""
        screen = self.screen
        try:
            with screen.step(f"Serve {model.told} on {node.name}") as step:
                demo.set_up(model, folder, node)
                demo.wait_confirmed(node, self.here, step)
            if not demo.is_served(model, node):
                screen.say(f"  {node.name} serves something else; assign {model.deployment} in the browser")
                return None
            with screen.step("Send a first request") as step:
                demo.warm(model, key, self.here, step)
        except StepFailed as error:
            screen.failed(error)
            screen.say("\nForebay itself runs on; mend it in the browser.")
            return None
        return model

    def _control_plane(self) -> None:
        here, screen, supervisor = self.here, self.screen, self.supervisor
        with screen.step("Bring the database up to date"):
            call_command("migrate", interactive=False, verbosity=0)
            self._password = accounts.ensure_admin()
        started = []
        with screen.step("Start valkey, web, gateway and worker") as step:
            if here.embedded_valkey:
                valkey = parts.valkey_part(here)
                supervisor.start(valkey)
                supervisor.wait_ready(valkey, lambda: parts.pings(settings.REDIS_URL), step)
            elif not parts.pings(settings.REDIS_URL):
                raise StepFailed(
                    f"No Redis or Valkey answers at {parts.without_password(settings.REDIS_URL)}.",
                    fix="correct FOREBAY_REDIS_URL, or unset it to use the embedded one",
                )
            broker.apply_acls()
            for part, check in parts.control_plane(here):
                supervisor.start(part)
                started.append((part, check))
            for part, check in started:
                step.note(f"waiting for {part.name}")
                supervisor.wait_ready(part, check, step)

    def _this_node(self) -> Node:
        here = self.here
        with self.screen.step("Start this host's agent") as step:
            node = local_agent.joined(here, step)
            since = local_agent.now()
            self.agent = parts.agent_part(here)
            self.supervisor.start(self.agent)
            self.supervisor.wait_ready(self.agent, lambda: local_agent.has_reported(node, since), step)
            step.note(f"node {node.name}")
        return node

    def _tell(self, model: DemoModel | None, key: str) -> None:
        say = self.screen.say
        say(f"\nForebay is up:  {settings.PUBLIC_URL}")
        if not self._tell_password():
            say("  user admin, password as shown at the first run   (forgotten: manage.py create_admin)")
        say(f"  OpenAI API  {settings.GATEWAY_URL}/v1   key {key}   (kept in {self.here.home / 'api_key'})")
        say(f"  logs        {self.here.logs}")
        if model:
            demo.show_usable(self.screen, model, key)
        say("Ctrl-C stops everything" + (", engines excepted." if self.here.keep_engines else ", engines too."))

    def _tell_password(self) -> bool:
        """Once, and even when a later step failed: it is kept nowhere."""
        password, self._password = self._password, None
        if password:
            self.screen.say(f"  user admin, password {password}   (shown this once; anew: manage.py create_admin)")
        return bool(password)

    def _down(self) -> None:
        """The agent and its engines first: it would start them again. A second Ctrl-C does not wait."""
        _hurry_on_signals(self.supervisor)
        self._tell_password()
        with self.screen.step("Stop everything" + (" but the engines" if self.here.keep_engines else "")) as step:
            try:
                self._stop_agent(step)
            except StepFailed as error:
                self.screen.failed(error)
            finally:
                step.note("")
                self.supervisor.stop_all()

    def _stop_agent(self, step: Step) -> None:
        if self.agent is None:
            return
        step.note("agent")
        self.supervisor.stop(self.agent)
        if not self.here.keep_engines:
            step.note("engines")
            local_agent.stop_engines(self.here, step)


def _wanted_model(here: Machine) -> DemoModel | None:
    if here.demo == "none":
        return None
    if here.demo not in demo_models.DEMOS:
        raise StepFailed(f"DEMO={here.demo} is not known.", fix="DEMO=smollm2 (default), DEMO=tiny or DEMO=none")
    return demo_models.DEMOS[here.demo]


def _only_one(here: Machine) -> ExitStack:
    """Hold the home folder's lock; the kernel lets go of it when this process ends, however it ends."""
    here.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    stack = ExitStack()
    file = stack.enter_context((here.home / "up.lock").open("a+"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stack.close()
        raise StepFailed(
            f"Forebay already runs from {here.home}.", fix="stop it there, or set FOREBAY_HOME to another folder"
        ) from None
    return stack


def _stop_on_signals() -> None:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


def _hurry_on_signals(supervisor: Supervisor) -> None:
    def hurry(_signal: int, _frame: FrameType | None) -> None:
        supervisor.hurry = True

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, hurry)
