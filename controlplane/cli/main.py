"""The `forebay` command itself: its parts, and how each run ends."""

from __future__ import annotations

from typing import Any

import click

from controlplane.cli.commands import (
    access,
    alerts,
    audit,
    backtest,
    capacity,
    changes,
    cost,
    gpus,
    logs,
    looking,
    nodes,
    partitions,
    pool,
    profile,
    scaling,
    teams,
    weights,
)
from controlplane.cli.failures import Exit, Failure
from controlplane.cli.session import Session

EXIT_CODES = """\
\b
Exit codes: 0 done, 1 refused by the rules, 2 wrong usage, 3 not signed in or
not allowed, 4 changed by somebody else, 5 server unreachable, 6 what was waited
for did not come, 130 interrupted.
"""


class Ending(click.Group):
    """A failure knows how to be shown; an interruption is not taken for a refusal, which click's own 1 would be."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Failure as error:
            error.show(as_json=ctx.ensure_object(Session).json)
            return ctx.exit(error.exit_code)
        except (KeyboardInterrupt, click.Abort):
            click.echo("Interrupted. A change that was sent before this stands.", err=True)
            return ctx.exit(Exit.INTERRUPTED)
        finally:
            ctx.ensure_object(Session).close()


@click.group(cls=Ending, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Look at a Forebay fleet and change it, from a terminal.

    Sign in with `forebay login URL`, or set FOREBAY_URL and FOREBAY_TOKEN. Partitions are written NODE/PARTITION.
    """
    ctx.ensure_object(Session)


for command in (
    access.login,
    access.logout,
    looking.status,
    looking.nodes,
    looking.partitions,
    looking.deployments,
    looking.models,
    partitions.assign,
    partitions.flip,
    partitions.release,
    changes.plan,
    changes.apply,
    changes.move,
    changes.undo,
    changes.changes,
    changes.resume,
    changes.rollback,
    nodes.cordon,
    nodes.uncordon,
    nodes.drain,
    gpus.gpus,
    gpus.qualify,
    weights.weights,
    weights.fetch,
    capacity.capacity,
    backtest.backtest,
    scaling.scaling,
    pool.pool,
    profile.profile,
    teams.team,
    cost.cost,
    cost.price,
    logs.logs,
    alerts.alerts,
    audit.audit,
    nodes.join_token,
):
    cli.add_command(command)


def main() -> None:
    cli(prog_name="forebay")
