"""History from what people have: files that they send, and a Prometheus beside a router of theirs."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.test import Client

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.domain.problems import DomainError
from controlplane.fleet.errors import FleetError
from controlplane.planning import history, keeping, prometheus, uploads
from controlplane.planning.models import ActivityDay, RecordedSpan
from controlplane.planning.traces import TraceError
from controlplane.planning.uploads import read_sent
from tests.factories import make_user

NOW = datetime.now(UTC).timestamp() // 60 * 60
LOG = "t_s,model,duration_s\n10,chat,2\n4000,code,1\n"


def sent(data: str | bytes, shift: bool = True) -> uploads.Sent:
    return read_sent("log.csv", data.encode() if isinstance(data, str) else data, shift_to_now=shift, now=NOW)


@pytest.mark.parametrize(
    "data",
    [
        LOG, "\ufeff" + LOG, LOG.replace("\n", "\r\n"), gzip.compress(LOG.encode()),
        gzip.compress(LOG[:30].encode()) + gzip.compress(LOG[30:].encode()),
        '{"t_s": 10, "model": "chat", "duration_s": 2}\n\n{"t_s": "4000", "model": "code", "duration_s": 1}\n',
        "model,from_s,until_s,requests\nchat,10,12,1\ncode,4000,4001,1\n",
    ],
)  # fmt: skip
def test_every_form_is_read(data: str | bytes) -> None:
    found = sent(data).requests
    assert (found.models, found.number.tolist()) == (("chat", "code"), [1, 1])
    assert NOW - 86_400 < found.until.max() <= NOW and found.at[1] - found.at[0] == 3990


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("", "is empty"), ("  \n", "is empty"), ("a,b\n1,2\n", "none of the known forms"),
        ("t_s,model,duration_s\n10,chat,2\nsoon,chat,2\n", "line 3: t_s, duration_s must be numbers"),
        ("t_s,model,duration_s\n10,chat\n", "line 2: t_s, duration_s must be numbers"),
        ("t_s,model,duration_s\n10,,2\n", "line 2: model must be given"),
        ("t_s,model,duration_s\n10,a,2\nnan,a,2\n", "line 3"), ("t_s,model,duration_s\n1,a,inf\n", "line 2"),
        ("t_s,model,duration_s\n10,chat,2,9\n", "line 2: more cells"),
        ("t_s,model,model,duration_s\n10,a,b,2\n", "'model' is there twice"),
        ('{"t_s": 10, "model": "chat", "duration_s": 2}\n\n{"t_s": 1\n', "line 3: no JSON"),
        ('{"t_s": 10, "model": "chat", "duration_s": 2}\n[1]\n', "line 2: each line must be a JSON object"),
        ('{"t_s": 10, "model": "chat", "duration_s": 2}\n{"t_s": 1, "model": 5, "duration_s": 2}', "line 2: model"),
        ('{"t_s":1,"model":"a","duration_s":1}\n' + "[" * 100_000, "line 2: no JSON"),
        (b"t_s,model,duration_s\n1,\xff\xfe,1\n", "can't decode"), (gzip.compress(LOG.encode())[:-9], "ends too early"),
        (b"\x1f\x8bnonsense", "no whole gzip"), (gzip.compress(b"a" * (65 * 2**20)), "more than 64 MiB once unpacked"),
        (b"a" * (3 * 2**20 + 1), "at most"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_the_line(data: str | bytes, words: str) -> None:
    with pytest.raises((FleetError, DomainError), match="Nothing was imported") as refused:
        sent(data)
    assert words in str(refused.value)


def test_more_rows_than_are_taken_at_once_are_refused() -> None:
    with pytest.raises(FleetError, match="line 3: more than 1 rows"):
        read_sent("log.csv", LOG.encode(), shift_to_now=True, now=NOW, most_rows=1)


@pytest.fixture
def operator(client: Client, db: None) -> Client:
    client.force_login(make_user("operator"), backend="django.contrib.auth.backends.ModelBackend")
    return client


def upload(client: Client, address: str, data: str, **fields: str) -> Any:
    return client.post(address, {"trace": SimpleUploadedFile("log.csv", data.encode()), "shift": "now", **fields})


def test_on_the_page_a_file_is_looked_at_then_imported(operator: Client) -> None:
    assert "from_s" in operator.get("/capacity/import").content.decode(), "the page explains the forms"
    looked = upload(operator, "/capacity/import/check", LOG).content.decode()
    assert "2 requests" in looked and "2 models" in looked and not ActivityDay.objects.exists()
    wrong = upload(operator, "/capacity/import/check", LOG + "x,y,z\n").content.decode()
    assert "line 4" in wrong
    answer = upload(operator, "/capacity/import", LOG + "x,y,z\n")
    assert answer.status_code == 400 and "line 4" in answer.content.decode() and not ActivityDay.objects.exists()
    assert operator.post("/capacity/import", {"shift": "now"}).status_code == 422
    done = operator.post(
        "/capacity/import", {"trace": SimpleUploadedFile("a.csv", LOG.encode()), "shift": "now", "reason": "ours"},
        follow=True,
    )  # fmt: skip
    assert "Imported 2 requests for 2 models" in done.content.decode()
    event = AuditEvent.objects.get(verb="import-activity")
    assert (event.reason, event.source) == ("ours", "web") and history.requests(NOW - 2 * 86_400, NOW).models


def test_over_rest_a_trace_is_tried_out_and_imported(operator: Client) -> None:
    import base64

    def post(body: dict[str, Any], query: str = "") -> Any:
        return operator.post(f"/api/v1/capacity/activity{query}", body, content_type="application/json")

    tried = post({"trace": LOG, "shift": "now"}, "?dry_run=true")
    assert (tried.status_code, tried.json()["requests"], tried.json()["kept"]) == (200, 2, False)
    assert not ActivityDay.objects.exists()
    packed = base64.b64encode(gzip.compress(LOG.encode())).decode()
    done = post({"gzip_base64": packed, "shift": "now", "reason": "ours"})
    assert (done.status_code, done.json()["models"], done.json()["kept"]) == (201, 2, True)
    for body, words in (
        ({"trace": LOG}, "between the year 2000"), ({}, "Send one of"), ({"gzip_base64": "!"}, "base64"),
        ({"trace": LOG, "gzip_base64": packed}, "Send one of"), ({"trace": LOG + "1,2\n", "shift": "now"}, "line 4"),
    ):  # fmt: skip
        refused = post(body)
        assert refused.status_code in {400, 409} and words in refused.json()["detail"], refused.json()
    assert ActivityDay.objects.count() == 2


class Server(ThreadingHTTPServer):
    """Answers range queries from a table as Prometheus does; `asked`: what came."""

    answer: dict[str, Any]
    asked: list[dict[str, str]]
    tokens: list[str | None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        self.server.asked.append(asked)
        self.server.tokens.append(self.headers.get("Authorization"))
        body = dict(self.server.answer)
        if body["status"] == "success":
            start, end = float(asked["start"]), float(asked["end"])
            series = [
                {**one, "values": [point for point in one["values"] if start <= float(point[0]) <= end]}
                for one in body["data"]["result"]
            ]
            body["data"] = {"resultType": "matrix", "result": [one for one in series if one["values"]]}
        text = json.dumps(body).encode()
        self.send_response(200 if body["status"] == "success" else 400)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    made.asked, made.tokens = [], []
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def series(name: str, *values: tuple[float, str], label: str = "model_name") -> dict[str, Any]:
    return {"metric": {label: name}, "values": [list(one) for one in values]}


def success(*found: dict[str, Any]) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": "matrix", "result": list(found)}}


def test_a_prometheus_is_asked_in_pieces_and_what_it_never_saw_is_not_no_demand(
    db: None, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREBAY_PROMETHEUS_TOKEN", "s3cret")
    old, new = NOW - 9 * 86_400, NOW - 3600
    server.answer = success(
        series("chat", (old, "3.05"), (old + 60, "0"), (new, "1.02"), (new + 60, "NaN")),
        series("code", (new, "0.003"), (new + 120, "7")),
    )
    said = StringIO()
    call_command("import_activity", "--prometheus", server.url, "--days", "10", stdout=said)
    assert "Imported 11 requests for 2 models" in said.getvalue()
    assert len(server.asked) == 2 and set(server.tokens) == {"Bearer s3cret"}, (
        "14,400 points are more than one answer has"
    )
    assert all(float(asked["end"]) - float(asked["start"]) <= 600_000 for asked in server.asked)
    found = history.requests(NOW - 10 * 86_400, NOW)
    assert sorted(zip(found.at.tolist(), found.number.tolist(), strict=True)) == [
        (old - 60, 3), (new - 60, 1), (new + 60, 7)
    ]  # fmt: skip
    assert RecordedSpan.objects.count() == 2, "between them nothing is on record"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"status": "error", "error": "parse error at char 3"}, "400: parse error at char 3"),
        (success(), "gives no series with the label"), (success(series("x", (NOW - 60, "1"), label="job")), "no label"),
        (success({"metric": {"model_name": "x"}, "values": [[NOW - 60, "much"]]}), "none of Prometheus'"),
    ],
)  # fmt: skip
def test_what_a_prometheus_cannot_tell_is_told(db: None, server: Server, answer: dict[str, Any], words: str) -> None:
    server.answer = answer
    with pytest.raises(CommandError, match="Nothing was imported") as refused:
        call_command("import_activity", "--prometheus", server.url, "--days", "1")
    assert words in str(refused.value) and not ActivityDay.objects.exists()


def test_a_server_that_is_not_there_is_told(server: Server) -> None:
    with pytest.raises(TraceError, match="does not answer"):
        prometheus.fetch(prometheus.Wanted("http://127.0.0.1:9", "up", NOW - 60, NOW))
    with pytest.raises(CommandError, match="and not both"):
        call_command("import_activity", "x.csv", "--prometheus", server.url)


def test_tokens_of_an_import_are_on_record_by_the_minute_and_exported(db: None, tmp_path: Path) -> None:
    log = "t_s,model,duration_s,input_tokens,output_tokens\n10,chat,200,300,20\n12,chat,3,100,5\n70,chat,1,9,4\n"
    day = NOW // 86_400 * 86_400 - 86_400
    found = read_sent("log.csv", log.encode(), shift_to_now=True, now=day + 86_399)
    keeping.save_import(found.requests, actor=Actor.system("test"), now=NOW)
    kept = history.requests(day - 86_400, NOW, tokens=True)
    assert kept.tokens is not None and kept.tokens.tolist() == [[400, 25], [9, 4]]
    assert (kept.at % 86_400).tolist() == [10, 70] and kept.number.tolist() == [2, 1]
    assert history.requests(day - 86_400, NOW).tokens is None
    assert not len(history.requests(day - 86_400, NOW, model="other").at)
    call_command("export_activity", str(tmp_path / "out.csv"), stdout=StringIO())
    first, second, *_ = (tmp_path / "out.csv").read_text().splitlines()
    assert first == "model,from_s,until_s,requests,input_tokens,output_tokens" and second.endswith(",2,400,25")
