"""Takes pictures of every page: 1440 and 380 px, dark and light, empty, normal and broken.

    python -m tests.browser.shots FOLDER [--only NAME,NAME] [--nodes N]

The fleet in them is simulated, and says so on the pages.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.browser.feigned import FeignedNode, Fleet
from tests.browser.pictures import WIDTHS, Shooter, program
from tests.browser.running import Running
from workers.contract import Phase

EMPTY = {
    "fleet-empty": "/",
    "board-empty": "/board/",
    "changes-empty": "/changes/",
    "models-empty": "/models/",
    "nodes-empty": "/nodes/",
    "keys-empty": "/settings/keys",
    "alerts-empty": "/alerts/",
    "targets-empty": "/alerts/targets/",
    "cost-empty": "/cost/",
    "teams-empty": "/cost/teams/",
    "prices-empty": "/cost/prices/",
}


def furnish(site: Running, nodes: int) -> list[FeignedNode]:
    """Models, deployments and joined nodes by the real services, in this process."""
    from tests.browser.furnish import furnish as make  # needs Django, which needs the environment

    return make(site.web, nodes)


def shoot(shooter: Shooter, options: argparse.Namespace) -> None:
    for name, path in EMPTY.items():
        shooter.take(name, path, settle_s=1.0)
    nodes = furnish(shooter.site, options.nodes)
    with Fleet(nodes) as fleet:
        time.sleep(3)
        from tests.browser.furnish import alarm, alert_scenes, assign, change, change_scenes, remember, scenes
        from tests.browser.spending import cost_scenes, spend

        ids = assign(nodes)
        remember(every_s=300)
        time.sleep(8)
        nodes[3].phases[ids["crashing"]] = Phase.EXITED
        nodes[4].phases[ids["draining"]] = Phase.DRAINING
        time.sleep(float(os.environ.get("SHOTS_HISTORY_S", "15")))
        fleet.quiet.add(nodes[-1].name)
        time.sleep(8)
        spend()
        for name, path, prepare in [*scenes(ids), *alert_scenes(alarm()), *cost_scenes()]:
            shooter.take(name, path, prepare)
        nodes[4].phases[ids["idle"]] = Phase.EXITED
        change(ids)
        time.sleep(6)
        for name, path, prepare in change_scenes(ids):
            shooter.take(name, path, prepare)
        drained(shooter, ids)
        fleet.quiet |= {node.name for node in nodes[-3:]}
        time.sleep(14)
        shooter.take("brake", "/brake/")
        shooter.take("fleet-braked", "/")
        shooter.site.end("web")
        broken(shooter, ids)
    if fleet.errors:
        print(f"  {len(fleet.errors)} reports failed, the last: {fleet.errors[-1]}", file=sys.stderr)


def drained(shooter: Shooter, ids: dict[str, int]) -> None:
    """While it lasts, and called off again."""
    from controlplane.audit.services import Actor
    from controlplane.fleet import services

    actor = Actor.system("shots")
    services.drain(ids["node"], actor=actor, reason="new fan", deadline_s=900)
    shooter.take("node-draining", f"/nodes/{ids['node']}/")
    shooter.take("drain-deadline", f"/nodes/{ids['node']}/drain")
    services.cancel_drain(ids["node"], actor=actor)


def broken(shooter: Shooter, ids: dict[str, int]) -> None:
    """The socket and the server are lost while the page is open."""
    shooter.site.start_web()

    for width, (w, h) in WIDTHS.items():
        for theme in ("dark", "light"):
            name = f"fleet-lost-{width}-{theme}"
            if shooter.only and "fleet-lost" not in shooter.only.split(","):
                continue
            with shooter.page(w, h, theme) as page:
                page.goto(f"{shooter.site.web}/?sel=p{ids['ready']}")
                page.wait_for_timeout(2500)
                shooter.site.end("web")
                page.wait_for_timeout(9000)
                page.screenshot(path=shooter.folder / f"{name}.png", full_page=True)
            shooter.site.start_web()


if __name__ == "__main__":
    program(__doc__, shoot, nodes=7)
