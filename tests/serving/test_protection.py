"""What clients may not do: send too much, too slowly, nonsense, or without leave."""

import asyncio
import json

import pytest

from agent.serving.door import Bounds
from tests.serving.at_the_door import Place, Told, answers, chunked, post, read_answer, tell

HOST = b"host: x\r\n"
GET = b"GET /echo HTTP/1.1\r\nhost: x\r\n"

NONSENSE = {
    b"\x16\x03\x01 hello\r\n\r\n": 400,
    b"GET /echo\r\n\r\n": 400,
    b"GET /echo HTTP/2.0\r\n" + HOST + b"\r\n": 505,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": 400,
    b"GET /echo RTSP/1.0\r\n" + HOST + b"\r\n": 400,
    b"GET /echo HTTP/1.1\r\n\r\n": 400,
    GET + HOST + b"\r\n": 400,
    GET + b" folded\r\n\r\n": 400,
    GET + b"name : x\r\n\r\n": 400,
    GET + b"name: \0\r\n\r\n": 400,
    b"GET /echo HTTP/1.1\nhost: x\n\nGET /echo HTTP/1.1\r\nhost: x\r\n\r\n": 400,
    b"GET /e cho HTTP/1.1\r\n" + HOST + b"\r\n": 400,
    b"CONNECT x:1 HTTP/1.1\r\n" + HOST + b"\r\n": 400,
    GET + b"content-length: 1\r\ncontent-length: 2\r\n\r\n": 400,
    GET + b"content-length: -1\r\n\r\n": 400,
    GET + b"content-length: +1\r\n\r\n": 400,
    GET + b"content-length: 1_0\r\n\r\n": 400,
    GET + b"content-length: " + b"9" * 40 + b"\r\n\r\n": 400,
    GET + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n": 400,
    GET + b"transfer-encoding: gzip, chunked\r\n\r\n": 501,
    GET + b"transfer-encoding: chunked, gzip\r\n\r\n": 400,
    b"GET /echo HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n": 400,
    GET + b"inference-header-content-length: x\r\n\r\n": 400,
    GET + b"inference-header-content-length: 1\r\ninference-header-content-length: 1\r\n\r\n": 400,
    GET + b"expect: miracles\r\n\r\n": 417,
    GET + b"content-encoding: gzip\r\n\r\n": 415,
    GET + b"a: b\r\n" * 200 + b"\r\n": 431,
    GET + b"a: " + b"b" * 70_000: 431,
    b"y" * 70_000: 431,
}


@pytest.mark.parametrize("stream", NONSENSE, ids=lambda stream: repr(stream[:40]))
def test_nonsense_is_answered_with_what_is_wrong_and_hung_up_on(stream: bytes) -> None:
    (told,) = answers(tell(lambda place: place.say(stream + b"GET /echo HTTP/1.1\r\n")))
    assert told.status == NONSENSE[stream]
    assert told.headers["connection"] == "close"
    assert json.loads(told.body)["error"].startswith("cannot ")


CHUNKS = [
    b"x\r\n",
    b"\r\n",
    b"-1\r\nx",
    b"0x1\r\nx\r\n0\r\n\r\n",
    b"1 1\r\nx\r\n0\r\n\r\n",
    b"1\r\nxy\r\n0\r\n\r\n",
    b"1\nx\n0\n\n" + b" " * 1100,
    b"f" * 13 + b"\r\n",
    b"1;" + b"e" * 2000,
    b"0\r\n" + b"name: value\r\n" * 1000,
]


@pytest.mark.parametrize("body", CHUNKS, ids=lambda body: repr(body[:20]))
def test_what_is_no_chunk_is_a_400(body: bytes) -> None:
    head = b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    for pieces in ((head + body,), (head, body)):
        (told,) = answers(tell(lambda place, pieces=pieces: place.say(*pieces)))
        assert told.status == 400


SMALL = Bounds(body_bytes=200_000, json_bytes=1000, held_bytes=300_000)
BINARY = "inference-header-content-length: 10"


@pytest.mark.parametrize(
    ("stream", "status"),
    [
        (post("/echo", b"x" * 1000, "connection: close"), 200),
        (post("/echo", b"x" * 1001), 413),
        (post("/echo", b"x" * 200_000, BINARY, "connection: close"), 200),
        (post("/echo", b"x" * 200_001, BINARY), 413),
        (post("/echo", b"x" * 2000, "inference-header-content-length: 1001"), 413),
        (chunked("/echo", b"x" * 1000, fields="connection: close\r\n"), 200),
        (chunked("/echo", b"x" * 999, b"xx"), 413),
        (chunked("/echo", *[b"x"] * 1001), 413),
    ],
)
def test_bodies_are_bounded(stream: bytes, status: int) -> None:
    (told,) = answers(tell(lambda place: place.say(stream), bounds=SMALL))
    assert told.status == status


def test_a_body_that_is_too_large_is_refused_before_it_is_sent() -> None:
    head = post("/echo", b"x" * 2000, "expect: 100-continue").partition(b"\r\n\r\n")[0]
    (told,) = answers(tell(lambda place: place.say(head + b"\r\n\r\n"), bounds=SMALL))
    assert told.status == 413


def test_all_bodies_together_are_bounded_and_memory_comes_back() -> None:
    async def story(place: Place) -> None:
        reader, writer = await place.connect()
        writer.write(post("/wait", b"x" * 190_000, BINARY))
        await place.held.wait()
        (told,) = answers(await place.say(post("/echo", b"x" * 190_000, BINARY)))
        assert told.status == 503
        assert told.headers["retry-after"] == "1"
        place.go_on.set()
        assert (await read_answer(reader)).status == 200
        writer.close()
        (told,) = answers(
            await place.say(post("/echo", b"x" * 190_000, BINARY, "connection: close"))
        )
        assert told.status == 200

    tell(story, bounds=SMALL)


QUICK = Bounds(head_s=0.05, idle_s=0.05, stall_s=0.05, least_bytes=1000)


@pytest.mark.parametrize(
    ("stream", "status"),
    [
        (b"", None),
        (b"POST /echo HTTP/1.1\r\nhost:", 408),
        (post("/echo", b"x" * 100)[:-1], 408),
        (chunked("/echo", b"x" * 100)[:-1], 408),
    ],
)
def test_who_sends_too_slowly_is_hung_up_on(stream: bytes, status: int | None) -> None:
    told = answers(tell(lambda place: place.say(stream), bounds=QUICK))
    assert [each.status for each in told] == ([] if status is None else [status])


def test_drops_of_a_head_do_not_buy_time() -> None:
    async def story(place: Place) -> bytes:
        reader, writer = await place.connect()
        writer.write(b"GET /echo HTTP/1.1\r\nhost: ")

        async def drip() -> None:
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        told = await reader.readuntil(b"}")
        dripping.cancel()
        writer.close()
        return told

    (told,) = answers(tell(story, bounds=QUICK))
    assert told.status == 408


def test_a_connection_without_requests_is_closed_in_time() -> None:
    async def story(place: Place) -> list[Told]:
        return answers(await place.say(post("/echo", b"1")))

    assert [told.body for told in tell(story, bounds=QUICK)] == [b"1"]


def test_time_does_not_run_while_the_server_works() -> None:
    async def story(place: Place) -> None:
        reader, writer = await place.connect()
        writer.write(post("/wait", b"1"))
        await place.held.wait()
        await place.say(b"")  # until the door has hung up on somebody else
        place.go_on.set()
        assert (await read_answer(reader)).body == b"1"
        writer.close()

    tell(story, bounds=QUICK)


def test_who_does_not_fetch_an_answer_is_hung_up_on() -> None:
    async def story(place: Place) -> None:
        _, writer = await place.connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined] # a read transport
        writer.write(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n" * 3)
        while not place.door.guests:
            await asyncio.sleep(0.01)
        while place.door.guests:
            await asyncio.sleep(0.01)
        writer.close()

    tell(story, bounds=QUICK)


def test_connections_are_bounded_and_idle_ones_make_room() -> None:
    async def story(place: Place) -> None:
        busy = [await place.connect() for _ in range(3)]
        for at, (_, writer) in enumerate(busy):
            writer.write(post("/wait") if at else post("/echo"))
        await read_answer(busy[0][0])
        await place.held.wait()
        reader, writer = await place.connect()
        writer.write(post("/wait"))
        assert await busy[0][0].read() == b""  # it was idle
        while len(place.asked) < 1 or sum(not guest.idle for guest in place.door.guests) < 3:
            await asyncio.sleep(0.01)
        (told,) = answers(await place.say(post("/echo")))
        assert told.status == 503
        place.go_on.set()
        for line in (*busy[1:], (reader, writer)):
            assert (await read_answer(line[0])).status == 200
            line[1].close()

    tell(story, bounds=Bounds(connections=3))


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        ([], 401),
        (["authorization: Bearer wrong"], 401),
        (["authorization: bearer"], 401),
        (["authorization: Basic secret"], 401),
        (["authorization: Bearer secret", "authorization: Bearer secret"], 400),
        (["authorization: Bearer secret"], 200),
        (["authorization: bearer secret"], 200),
    ],
)
def test_a_token_is_asked_for_where_there_is_one(shown: list[str], status: int) -> None:
    stream = post("/echo", b"x", "connection: close", *shown)
    (told,) = answers(tell(lambda place: place.say(stream), token="secret"))
    assert told.status == status
    if status == 401:
        assert told.headers["www-authenticate"] == "bearer"


def test_health_needs_no_token() -> None:
    stream = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    (told,) = answers(tell(lambda place: place.say(stream), token="secret"))
    assert told.status == 200


def test_closing_finishes_what_is_being_answered() -> None:
    async def story(place: Place) -> None:
        reader, writer = await place.connect()
        idle, also = await place.connect()
        writer.write(post("/wait", b"1"))
        await place.held.wait()
        place.server.close()
        closing = asyncio.create_task(place.door.close(within_s=10))
        assert await idle.read() == b""
        place.go_on.set()
        (told,) = answers(await reader.read())
        assert (told.body, told.headers["connection"]) == (b"1", "close")
        await closing
        writer.close()
        also.close()

    tell(story)


def test_closing_does_not_wait_for_ever() -> None:
    async def story(place: Place) -> None:
        reader, writer = await place.connect()
        writer.write(post("/wait", b"1"))
        await place.held.wait()
        await place.door.close(within_s=0.05)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await read_answer(reader)
        await place.cancelled.wait()
        writer.close()

    tell(story)
