"""`manage.py` as a process that stays: a command in as a line of JSON, what it printed out. Starting Django anew each
time would take longer than most commands.

    python -m tests.browser.managing    with DJANGO_SETTINGS_MODULE and FOREBAY_HOME as for manage.py
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import traceback


def main() -> None:
    import django
    from django.core.management import call_command
    from django.db import connections

    django.setup()
    for line in sys.stdin:
        printed, failed = io.StringIO(), ""
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                call_command(*json.loads(line), stdout=printed)
        except BaseException:  # SystemExit, too: it is told, and the next command is taken
            failed = traceback.format_exc()
        connections.close_all()
        sys.stdout.write(json.dumps({"printed": printed.getvalue(), "failed": failed}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
