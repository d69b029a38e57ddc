"""A backtest over REST: of a trace that is sent, judged where comparisons are, and never taken for own history."""

from __future__ import annotations

import base64
import gzip
import time
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from controlplane.planning import comparing
from controlplane.planning.backtests import Asked, as_json, backtest
from controlplane.planning.models import ActivityDay, Comparison
from controlplane.planning.traces import write
from tests.domain.forecast.worlds import fleet
from tests.factories import make_user

pytestmark = pytest.mark.django_db
ADDRESS = "/api/v1/capacity/comparisons"
HEAD = "t_s,model,duration_s\n"
TIMED = {"ms_per_decision"}


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(make_user("operator"), backend="django.contrib.auth.backends.ModelBackend")
    return client


def post(client: Client, **body: Any) -> Any:
    return client.post(ADDRESS, body, content_type="application/json")


def test_a_trace_is_judged_as_the_command_judges_it(operator: Client, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    write(fleet(5, 1.5), path)
    packed = base64.b64encode(gzip.compress(path.read_bytes())).decode()
    question = {"tau_s": 120, "horizon_s": 1200, "quantiles": [0.9, 0.95], "methods": ["last", "ar"]}
    days = {"warmup_days": 0.5, "judge_from_day": 1}
    asked = post(operator, gzip_base64=packed, name="trace.csv", **question, **days)
    assert asked.status_code == 202, asked.json()
    assert asked.json()["newest"] is None, "it is not of own history"
    where = asked["Location"]
    assert operator.get(where).json()["state"] == "asked"
    assert post(operator, trace=HEAD + "0,a,1\n90000,a,1\n").status_code == 409, "one at a time"
    row = comparing.compare_if_due(time.time())
    assert row is not None and row.error == ""
    told = operator.get(where).json()
    assert (told["state"], told["trace"], told["keep_alive_s"]) == ("done", "trace.csv", 120)
    expected = as_json(
        backtest([path], Asked(120, 1200, (0.9, 0.95), methods=("last", "ar"), warmup_days=0.5, judge_from_day=1.0))
    )
    found = {one["key"]: {k: v for k, v in one.items() if k not in {"key", *TIMED}} for one in told["methods"]}
    assert found == {
        key: {k: v for k, v in score.items() if k not in TIMED} for key, score in expected["methods"].items()
    }
    assert set(found) == {"last", "ar", "static", "reactive", "clairvoyant"} and told["windows"] == expected["windows"]
    assert Comparison.objects.get().trace is None and not ActivityDay.objects.exists(), "nothing of it stays"
    assert (
        operator.get(ADDRESS).json()["last_result"] is None
        and "Once a day" in operator.get("/capacity/methods").content.decode()
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"trace": HEAD + "x,a,1\n"}, "line 2"),
        ({"trace": HEAD}, "has no requests"),
        ({"trace": HEAD + f"0,a,1\n{40 * 86_400},a,1\n"}, "over 40.0 days"),
        ({"trace": HEAD + "".join(f"{n},m{n},1\n" for n in range(2001))}, "2001 models"),
        ({"trace": HEAD + "0,a,1\n90000,a,1\n", "judge_from_day": 5}, "he trace ends on day"),
        ({"trace": HEAD + "0,a,1\n90000,a,1\n", "quantiles": [0.9, 0.5]}, "uantiles must rise"),
        ({"trace": HEAD + "0,a,1\n90000,a,1\n", "methods": ["oracle"]}, "oracle"),
        ({"gzip_base64": "!"}, "base64"), ({"tau_s": 60}, "Send one of"), ({"tau": 60}, "no such field"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_refused_and_nothing_asked_for(
    operator: Client, body: dict[str, Any], words: str
) -> None:
    refused = post(operator, **body)
    assert refused.status_code in {400, 409, 422} and words in refused.content.decode(), refused.content
    assert "imported" not in refused.content.decode() and not Comparison.objects.exists()


def test_there_is_none_of_another_number(operator: Client) -> None:
    assert operator.get(f"{ADDRESS}/77").status_code == 404
