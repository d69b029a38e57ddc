"""Teams from a terminal."""

from __future__ import annotations

from controlplane.audit.services import Actor
from controlplane.gateway import services as gateway
from tests.cli.conftest import Terminal
from tests.factories import make_deployment


def test_a_team_is_made_changed_given_a_key_and_removed(terminal: Terminal, actor: Actor) -> None:
    terminal.sign_in("admin")
    assert "no team yet" in terminal.ok("team")
    make_deployment("tiny")
    made = terminal.json("team", "create", "search", "--soft", "80", "--hard", "99.50", "--deployment", "tiny")
    assert (made["budget_soft"], made["budget_hard"], made["deployments"]) == (80, 99.5, ["tiny"])
    changed = terminal.json("team", "change", "search", "--soft", "none", "--floor", "2", "--deployment", "none",
                            "-m", "agreed")  # fmt: skip
    assert (changed["budget_soft"], changed["budget_hard"], changed["deployments"]) == (None, 99.5, [])
    assert changed["pool_floor"] == 2
    key, _ = gateway.create_key(name="bot", actor=actor)
    assert "bot is search's." in terminal.ok("team", "give", str(key.pk), "search")
    shown = terminal.ok("team").split()
    assert "search" in shown and "99.50" in shown
    assert "still has API keys" in terminal.fails(1, "team", "remove", "search")
    assert "bot is nobody's." in terminal.ok("team", "give", str(key.pk))
    assert "Removed search." in terminal.ok("team", "remove", "search")


def test_an_amount_that_is_none_and_a_team_that_is_not_there_are_told(terminal: Terminal, actor: Actor) -> None:
    terminal.sign_in("admin")
    assert "no amount" in terminal.fails(2, "team", "create", "search", "--soft", "much")
    terminal.ok("team", "create", "search")
    assert "Did you mean search?" in terminal.fails(2, "team", "change", "serch", "--soft", "1")
