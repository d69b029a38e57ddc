"""The client towards the engines, against servers that answer byte for byte what a test says."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.gateway.exchange import UpstreamError
from controlplane.gateway.upstream import Bounds, Connection, Pool
from tests.gateway.conftest import eventually

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers the n-th request of each connection with `script[n]`; None closes, "stay" never answers."""

    def __init__(self) -> None:
        self.script: list[bytes | None] = []
        self.connections = 0
        self.requests = 0
        self.closed = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def start(self) -> int:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        return int(self.server.sockets[0].getsockname()[1])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            for answer in self.script:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                if answer is None:
                    return
                writer.write(answer)
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.closed += 1
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    yield server
    server.server.close()
    for writer in server.writers:
        writer.transport.abort()
    await eventually(lambda: server.closed == server.connections)


async def pool_of(server: Server, **bounds: float) -> Pool:
    return Pool("127.0.0.1", await server.start(), replace(Bounds(), **bounds))


def whole(body: bytes, head: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)


async def fetch(pool: Pool) -> tuple[int, bytes]:
    exchange = await pool.send(GET)
    exchange.deadline(5.0, "too long")
    await exchange.done
    return exchange.status, exchange.body


async def test_a_connection_is_used_again(server: Server) -> None:
    server.script = [whole(b"one"), whole(b""), whole(b"three")]
    pool = await pool_of(server)
    assert [await fetch(pool) for _ in range(3)] == [(200, b"one"), (200, b""), (200, b"three")]
    assert server.connections == 1


async def test_exchanges_at_once_have_a_connection_each(server: Server) -> None:
    server.script = [whole(b"x"), whole(b"x")]
    pool = await pool_of(server)
    exchanges = await asyncio.gather(*(pool.send(GET) for _ in range(3)))
    await asyncio.gather(*(exchange.done for exchange in exchanges))
    assert server.connections == 3
    assert len(pool._idle) == 3


@pytest.mark.parametrize("head", [b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 200 OK\r\nconnection: close\r\n"])
async def test_a_connection_that_says_it_closes_is_not_used_again(server: Server, head: bytes) -> None:
    server.script = [head + b"content-length: 1\r\n\r\nx"]
    pool = await pool_of(server)
    assert (await fetch(pool))[1] == b"x"
    assert not pool._idle


async def test_an_idle_connection_is_let_go_before_the_engine_does(server: Server) -> None:
    server.script = [whole(b"x")] * 3
    pool = await pool_of(server, idle_s=0.05)
    await fetch(pool)
    await asyncio.sleep(0.1)
    await fetch(pool)
    assert server.connections == 2
    await asyncio.sleep(0.1)
    pool.sweep()
    await eventually(lambda: server.closed == 2)


async def test_a_request_met_by_a_closing_connection_is_stale_and_not_repeated(server: Server) -> None:
    """The engine may have begun on it: whether it may be asked again is for the caller to know."""
    server.script = [whole(b"x"), None]
    pool = await pool_of(server)
    await fetch(pool)
    with pytest.raises(UpstreamError) as failed:
        await fetch(pool)
    assert failed.value.stale
    assert not failed.value.answered
    assert server.requests == 2


async def test_a_new_connection_that_closes_is_no_stale_one(server: Server) -> None:
    server.script = [None]
    with pytest.raises(UpstreamError) as failed:
        await fetch(await pool_of(server))
    assert not failed.value.stale


async def test_an_answer_cut_short_is_a_failure(server: Server) -> None:
    server.script = [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", None]
    pool = await pool_of(server)
    exchange = await pool.send(GET)
    await exchange.head
    server.server.close()
    exchange.deadline(0.1, "given up")
    with pytest.raises(UpstreamError) as failed:
        await exchange.done
    assert failed.value.answered


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n", "too many headers"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 600_000, "too large"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: " + b"a" * 600_000, "too large"),
        (whole(b"a" * 2000), "too large"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"10\r\n0123456789abcdef\r\n" * 100, "too large"),
    ],
)  # fmt: skip
async def test_what_is_no_lawful_answer_is_refused(server: Server, answer: bytes, why: str) -> None:
    server.script = [answer]
    pool = await pool_of(server, answer_bytes=1000)
    with pytest.raises(UpstreamError, match=why):
        await fetch(pool)
    assert not pool._idle
    await eventually(lambda: server.closed == 1)


async def test_a_second_answer_to_one_question_ends_the_connection(server: Server) -> None:
    """Else it would be taken for the answer to the next."""
    server.script = [whole(b"mine") + whole(b"smuggled"), whole(b"next")]
    pool = await pool_of(server)
    assert await fetch(pool) == (200, b"mine")
    server.script = [whole(b"next")]
    assert await fetch(pool) == (200, b"next")
    assert server.connections == 2


async def test_bytes_nobody_asked_for_end_the_connection(server: Server) -> None:
    server.script = [whole(b"mine")]
    pool = await pool_of(server)
    await fetch(pool)
    (connection,) = pool._idle
    connection.data_received(whole(b"smuggled"))
    server.script = [whole(b"next")]
    assert await fetch(pool) == (200, b"next")


async def test_an_informational_answer_is_not_the_answer(server: Server) -> None:
    server.script = [b"HTTP/1.1 100 Continue\r\n\r\n" + whole(b"x"), whole(b"y")]
    pool = await pool_of(server)
    assert await fetch(pool) == (200, b"x")
    assert await fetch(pool) == (200, b"y")


async def test_nobody_listening_is_a_failure(server: Server) -> None:
    pool = await pool_of(server)
    server.server.close()
    await server.server.wait_closed()
    with pytest.raises(UpstreamError, match="no connection"):
        await pool.send(GET)


async def test_nothing_is_sent_after_its_moment(server: Server) -> None:
    server.script = [whole(b"x"), whole(b"y")]
    pool = await pool_of(server)
    with pytest.raises(UpstreamError):
        await pool.send(GET, not_after=pool.loop.time() - 0.01)
    await fetch(pool)
    with pytest.raises(UpstreamError, match="too late"):
        await pool.send(GET, not_after=pool.loop.time() - 0.01)
    assert server.requests == 1
    assert await fetch(pool) == (200, b"y"), "the connection is as good as before"


async def test_an_abort_closes_the_connection(server: Server) -> None:
    server.script = [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"]
    exchange = await (await pool_of(server)).send(GET)
    await exchange.head
    exchange.abort("enough")
    exchange.abort("twice is once")
    with pytest.raises(UpstreamError, match="enough"):
        await exchange.done
    await eventually(lambda: server.closed == 1)


async def test_silence_is_noticed_and_talk_is_not_silence(server: Server) -> None:
    server.script = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"]
    pool = await pool_of(server)
    exchange = await pool.send(GET)
    await exchange.head
    exchange.attach(lambda _: None)
    exchange.watch(0.15)
    for _ in range(8):
        await asyncio.sleep(0.05)
        assert exchange.connection is not None
        exchange.connection.data_received(b"1\r\nx\r\n")
    with pytest.raises(UpstreamError, match="silent"):
        await asyncio.wait_for(exchange.done, 2)


async def test_a_paused_connection_reads_on_when_it_is_used_again(server: Server) -> None:
    server.script = [whole(b"one"), whole(b"two")]
    pool = await pool_of(server)
    exchange = await pool.send(GET)
    exchange.attach(lambda _: exchange.pause())
    await exchange.done
    assert await fetch(pool) == (200, b"two")
    assert server.connections == 1


async def test_a_closed_pool_keeps_nothing(server: Server) -> None:
    server.script = [whole(b"x")]
    pool = await pool_of(server)
    exchange = await pool.send(GET)
    pool.close()
    await exchange.done
    await eventually(lambda: server.closed == 1)


class Wire:
    """A transport that goes nowhere."""

    def __init__(self) -> None:
        self.closed = False

    def write(self, data: bytes) -> None: ...

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    chunked=st.booleans(),
    cuts=st.lists(st.integers(0, 400), max_size=10),
)
def test_however_an_answer_is_cut_it_is_the_same(chunks: list[bytes], chunked: bool, cuts: list[int]) -> None:
    body = b"".join(chunks)
    framed = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in chunks) + b"0\r\nx-trailer: y\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
    answer = head + (b"transfer-encoding: chunked\r\n\r\n" + framed if chunked else whole(body).partition(b"\r\n")[2])
    places = sorted({min(cut, len(answer)) for cut in cuts} | {0, len(answer)})

    async def take() -> None:
        pool = Pool("127.0.0.1", 1)
        connection = Connection(pool)
        connection.connection_made(Wire())  # type: ignore[arg-type]
        for _ in range(2):
            exchange = connection.send(GET)
            for start, end in itertools.pairwise(places):
                connection.data_received(answer[start:end])
            assert exchange.done.done()
            assert (exchange.status, exchange.body, exchange.content_type) == (200, body, b"text/plain")
            assert list(pool._idle) == [connection]
            pool._idle.clear()

    asyncio.run(take())


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=12) | st.sampled_from([b"\r\n", b"2\r\nab", b"\r\n0"]), max_size=8),
    cuts=st.lists(st.integers(0, 200), max_size=10),
    whole_ones=st.booleans(),
)
def test_what_is_taken_past_the_parser_are_whole_chunks_and_no_byte_is_lost(
    chunks: list[bytes], cuts: list[int], whole_ones: bool
) -> None:
    framed = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in chunks]
    answer = b"".join(framed) + b"0\r\n\r\n"
    ends = set(itertools.accumulate(map(len, framed))) if whole_ones else set()
    places = sorted({min(cut, len(answer)) for cut in cuts} | ends | {0, len(answer)})
    said: list[bytes] = []

    def take_whole(data: bytes) -> bool:
        """As strict as a user of it has to be: exactly one chunk."""
        size, mark, rest = data.partition(b"\r\n")
        body = rest[:-2]
        if not mark or not rest.endswith(b"\r\n") or not body or size != b"%x" % len(body):
            return False
        said.append(body)
        return True

    async def take() -> None:
        connection = Connection(Pool("127.0.0.1", 1))
        connection.connection_made(Wire())  # type: ignore[arg-type]
        exchange = connection.send(GET)
        connection.data_received(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        exchange.attach(said.append)
        exchange.whole_chunks = take_whole
        for start, end in itertools.pairwise(places):
            connection.data_received(answer[start:end])
        assert exchange.done.done()

    asyncio.run(take())
    assert b"".join(said) == b"".join(chunks)
