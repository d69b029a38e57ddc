"""Cost and prices from a terminal."""

from __future__ import annotations

from datetime import timedelta

from controlplane.costs import counting
from tests.cli.conftest import Terminal
from tests.costs.conftest import HOUR, LATER, Past, past  # noqa: F401

RANGE = ("--since", HOUR.isoformat(), "--until", (HOUR + timedelta(hours=1)).isoformat())


def test_what_it_cost_is_told_with_what_is_not_known(past: Past, terminal: Terminal) -> None:  # noqa: F811
    terminal.sign_in("admin")
    assert "Nothing is counted yet" in terminal.ok("cost")
    past.gpus_up()
    past.up(past.decode)
    past.asked(0, 40)
    counting.count(LATER)
    assert "No usage in that time." in terminal.ok("cost", "--for", "1h")
    unpriced = terminal.ok("cost", *RANGE)
    assert "Without 5 GPU-hours on nodes that have no price" in unpriced
    assert "1 node has that price." in terminal.ok("price", "alpha", "3.60", "--since", HOUR.isoformat(), "-m", "bill")
    told = terminal.ok("cost", *RANGE)
    assert "Without" not in told
    nobodys, owners, users = (line.split() for line in told.splitlines()[1:4])
    assert nobodys[:3] == ["nobody's", "10.80", "3.00"]
    assert owners[:4] == ["owners", "7.14", "1.98", "0%"]
    assert users[:4] == ["users", "0.06", "0.02", "100%"]
    assert told.splitlines()[4].split()[:3] == ["total", "18.00", "5.00"]
    assert terminal.json("cost", "--by", "node", *RANGE)["groups"][0]["name"] == "alpha"
    assert terminal.ok("price", "alpha", "none", "--since", HOUR.isoformat())
    assert terminal.json("cost", *RANGE)["total"]["cost"] is None
    assert "no node beta" in terminal.fails(2, "price", "alpha", "beta", "1")
