"""The agent's figures for Prometheus, on a port of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prometheus_client import generate_latest

from tests.conftest import free_port
from tests.expositions import a_report
from tests.workers.control import AgentProcess, Control, until
from workers.config import ConfigError, Settings
from workers.contract import NodeReport
from workers.exposition import Figures, Listener
from workers.uplink import Answer


def text_of(report: NodeReport, answer: Answer = Answer.OK) -> str:
    figures = Figures()
    figures.reported(report, answer, 0.01)
    return generate_latest(figures.registry).decode()


def test_what_a_device_does_not_tell_has_no_sample() -> None:
    text = text_of(a_report(power_w=None, temperature_c=float("nan"), throttle=""))

    assert 'forebay_agent_gpu_utilization_ratio{gpu="0",kind="nvidia",uuid="GPU-1"} 0.5' in text
    for silent in ("gpu_power_watts{", "gpu_temperature_celsius{", "gpu_throttled{"):
        assert f"forebay_agent_{silent}" not in text


def test_a_report_that_was_not_taken_is_counted_as_such() -> None:
    text = text_of(a_report(), Answer.SLOW_DOWN)

    assert 'forebay_agent_reports_total{answer="slow_down"} 1.0' in text
    assert 'forebay_agent_reports_total{answer="ok"} 0.0' in text
    assert "forebay_agent_report_taken_timestamp_seconds 0.0" in text


@pytest.mark.parametrize("wrong", ["9464", ":9464", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:70000"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ConfigError, match="host:port"):
        Settings.read(tmp_path, {"FOREBAY_AGENT_METRICS": wrong})


def test_nothing_is_exposed_unless_asked_for(tmp_path: Path) -> None:
    assert Settings.read(tmp_path, {}).metrics is None
    assert Settings.read(tmp_path, {"FOREBAY_AGENT_METRICS": "[::1]:9464"}).metrics == ("::1", 9464)


def test_a_port_that_is_taken_is_told_of() -> None:
    port = free_port()
    first = Listener(("127.0.0.1", port), Figures())
    try:
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}"):
            Listener(("127.0.0.1", port), Figures())
    finally:
        first.close()


def test_an_agent_tells_of_its_gpus_and_reports_while_it_runs(
    new_agent: Callable[..., AgentProcess], control: Control
) -> None:
    port = free_port()
    agent = new_agent(FOREBAY_AGENT_METRICS=f"127.0.0.1:{port}")
    agent.join()
    agent.start()
    until(lambda: len(control.reports) > 1 and control.last.samples, what="reports")

    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text

    assert len(re.findall(r"^forebay_agent_gpu_utilization_ratio\{", text, re.MULTILINE)) == 4
    taken = re.search(r'^forebay_agent_reports_total\{answer="ok"\} (.+)$', text, re.MULTILINE)
    assert taken is not None and float(taken[1]) >= 1
