"""Profiles from a terminal."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from controlplane.audit.services import Actor
from controlplane.planning import measurements, profiles
from controlplane.planning.measuring import Progress
from controlplane.planning.models import ProfileRun
from tests.cli.conftest import Terminal, Wire
from tests.factories import make_deployment, make_model, make_node, make_partition, make_ready
from tests.planning import profile_tables as tables
from tests.planning.test_measuring import profile

pytestmark = pytest.mark.django_db


def test_a_table_is_imported_listed_shown_and_forgotten(operator: Terminal, tmp_path: Path) -> None:
    assert "There are none" in operator.ok("profile", "list")
    file = tmp_path / "table.csv.gz"
    file.write_bytes(gzip.compress(tables.splitwise().encode()))
    shown = operator.ok("profile", "import", str(file), "--model", "llama=llama-70b", "--gpu", "h100=NVIDIA H100")
    assert "llama-70b" in shown and "NVIDIA H100" in shown and "imported" in shown
    assert "1 of an earlier import" in operator.ok(
        "profile", "import", str(file), "--model", "llama=llama-70b", "--gpu", "h100=NVIDIA H100"
    )
    [row] = operator.json("profile", "list", "--model", "llama-70b")
    told = operator.ok("profile", "show", str(row["id"]))
    assert "The smallest batch that fills it" in told and "table.csv.gz" in told and "SEQUENCES" in told
    assert f"Profile {row['id']} is forgotten" in operator.ok("profile", "delete", str(row["id"]))
    assert "no profile" in operator.fails(2, "profile", "show", str(row["id"]))


def test_what_is_no_table_is_refused_in_words(operator: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("a,b\n")
    assert "Nothing was imported" in operator.fails(1, "profile", "import", str(file))
    assert "OLD=NEW" in operator.fails(2, "profile", "import", str(file), "--model", "x")
    file.write_bytes(b"\x1f\x8bnope")
    assert "cannot be read" in operator.fails(2, "profile", "import", str(file))


def test_an_engine_is_measured_while_the_terminal_tells_how_far_it_is(operator: Terminal, wire: Wire) -> None:
    make_ready(make_partition(make_node("alpha"), deployment=make_deployment("chat"), role="aggregated"))
    looks = 0

    def measures(path: str) -> None:
        nonlocal looks
        if "profile-runs" not in path or (run := ProfileRun.objects.first()) is None:
            return
        looks += 1
        if looks == 1:
            measurements.begin(run.pk)
            measurements.beat(run.pk, Progress(3, 40, "prefill of 64 tokens"))
        if looks == 3:
            measurements.finish(run.pk, profile(), [])

    wire.on_look = measures
    result = operator.run("profile", "run", "chat", "--partition", "alpha/p0", "-m", "new flags")
    assert result.exit_code == 0, result.output
    assert "alpha/p0: 3/40 prefill of 64 tokens" in result.stderr
    assert "The smallest batch that fills it" in result.stdout and "measured from alpha/p0" in result.stdout
    assert "is to be begun" in operator.ok("profile", "run", "chat", "--no-wait")
    assert "being measured" in operator.fails(1, "profile", "run", "chat")
    run = ProfileRun.objects.order_by("-pk")[0]
    assert "cancelled" in operator.ok("profile", "cancel", str(run.pk))

    def fails(path: str) -> None:
        if (run := ProfileRun.objects.filter(state="wanted").first()) is not None:
            measurements.begin(run.pk)
            measurements.fail(run.pk, "It is gone.")

    wire.on_look = fails
    assert "It is gone" in operator.fails(6, "profile", "run", "chat")


def test_its_batch_is_given_to_engines_once_somebody_is_sure(operator: Terminal) -> None:
    [row] = profiles.import_table(tables.splitwise(), actor=Actor.system("test")).made
    chat = make_deployment(
        "chat", model=make_model("llama"), engine_args=["--max-num-batched-tokens", "64", "--seed=1"]
    )
    make_ready(make_partition(make_node("alpha"), deployment=chat, role="aggregated"))
    number, after = str(row.pk), "chat: engine_args --seed=1 --max-num-batched-tokens="
    assert after in operator.ok("profile", "apply", number, "chat", "--dry-run")
    assert "would be replaced at once" in operator.fails(1, "profile", "apply", number, "chat")
    told = operator.ok("profile", "apply", number, "chat", "--force", "--yes", "-m", "TTFT")
    assert after in told and "of which this profile says nothing" in told
    assert "as it is already" in operator.ok("profile", "apply", number, "chat")
