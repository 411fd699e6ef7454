"""HTTP/1.1 as clients speak it: order, framing, and connections that end in every way."""

import asyncio
import itertools
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving.at_the_door import Place, Told, answers, chunked, post, read_answer, tell

CLOSE = "connection: close"


def one(*pieces: bytes, end: bool = False) -> Told:
    told = tell(lambda place: place.say(*pieces, end=end))
    (answer,) = answers(told)
    return answer


def test_a_connection_is_kept_for_the_next_request() -> None:
    async def story(place: Place) -> None:
        reader, writer = await place.connect()
        for body in (b"first", b"second"):
            writer.write(post("/echo", body))
            assert (await read_answer(reader)).body == body
        writer.close()

    tell(story)


REQUESTS = [
    post("/echo", b"plain"),
    post("/echo"),
    b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\n",
    chunked("/echo", b"in ", b"chunks"),
    b"\r\n" + chunked("/echo", b"x" * 100, trailer=b"checksum: 1\r\n"),
    post("/echo", b"json" + b"\0" * 40, "inference-header-content-length: 4"),
    b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n",
]


@settings(max_examples=60, deadline=None)
@given(
    which=st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=5),
    cuts=st.lists(st.integers(1, 600), max_size=8),
)
def test_however_a_stream_is_cut_its_answers_are_the_same(
    which: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join([*which, post("/echo", b"last", CLOSE)])
    at = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[a:b] for a, b in itertools.pairwise(at)]

    async def story(place: Place) -> tuple[bytes, bytes]:
        return await place.say(stream), await place.say(*pieces)

    whole, cut = tell(story)
    assert whole == cut
    told = answers(whole)
    assert len(told) == len(which) + 1
    assert told[-1].body == b"last"


def test_a_request_that_comes_byte_by_byte_is_answered() -> None:
    stream = post("/echo", b"slowly", CLOSE)
    assert one(*(stream[at : at + 1] for at in range(len(stream)))).body == b"slowly"


def test_requests_behind_one_that_waits_are_answered_behind_it() -> None:
    async def story(place: Place) -> list[Told]:
        reader, writer = await place.connect()
        writer.write(post("/wait", b"1") + post("/echo/2", b"2") + post("/echo", b"3", CLOSE))
        await place.held.wait()
        assert place.asked == []
        place.go_on.set()
        told = answers(await reader.read())
        writer.close()
        return told

    assert [told.body for told in tell(story)] == [b"1", b"2", b"3"]


def test_one_client_s_flood_does_not_keep_others_waiting() -> None:
    async def story(place: Place) -> None:
        _, flood = await place.connect()
        reader, other = await place.connect()
        flood.write(post("/echo/flood") * 1000)
        other.write(post("/echo/other"))
        await read_answer(reader)
        assert place.asked.count("/echo/flood") < 1000
        flood.close()
        other.close()

    tell(story)


def test_a_large_body_and_a_large_answer_arrive_whole() -> None:
    async def story(place: Place) -> None:
        body = bytes(range(256)) * 20_000
        back = answers(
            await place.say(post("/echo", body, CLOSE, "inference-header-content-length: 1"))
        )
        assert back[0].body == body
        big = answers(await place.say(b"GET /big HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
        assert big[0].body == b"x" * 8_000_000 + b"y" * 8_000_000

    tell(story)


@pytest.mark.parametrize("skip", [2, 16, 117])
@pytest.mark.parametrize("in_chunks", [False, True])
def test_tensors_behind_json_begin_where_loads_want_them(skip: int, in_chunks: bool) -> None:
    body = b"j" * skip + b"\0" * 100_000
    field = f"inference-header-content-length: {skip}"
    if in_chunks:
        stream = chunked("/aligned", body[:50_000], body[50_000:], fields=f"{field}\r\n{CLOSE}\r\n")
    else:
        stream = post("/aligned", body, field, CLOSE)
    head, rest = stream[:200], stream[200:]
    assert one(head, rest).body == b"0"


def test_head_gets_the_headers_of_get_without_its_body() -> None:
    ask = b"%b /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    got, head = (
        tell(lambda place, method=method: place.say(ask % method)) for method in (b"GET", b"HEAD")
    )
    assert head == got[: len(head)]
    assert head.endswith(b"\r\n\r\n")


def test_http_1_0_ends_unless_it_asks_to_stay() -> None:
    ends = one(b"GET /echo HTTP/1.0\r\n\r\n")
    assert ends.headers["connection"] == "close"
    stays = b"GET /echo HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
    told = answers(tell(lambda place: place.say(stays, stays, end=True)))
    assert [each.headers["connection"] for each in told] == ["keep-alive"] * 2


def test_who_waits_for_leave_to_send_a_body_gets_it() -> None:
    async def story(place: Place) -> None:
        reader, writer = await place.connect()
        head, _, body = post("/echo", b"body", "expect: 100-continue").partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await read_answer(reader)).body == b"body"
        writer.close()

    tell(story)


def test_who_does_not_wait_for_leave_is_not_given_it() -> None:
    assert one(post("/echo", b"body", "expect: 100-continue", CLOSE)).body == b"body"


def test_nobody_waits_for_an_answer_that_was_given_up() -> None:
    assert tell(lambda place: place.say(post("/give-up"))) == b""


@pytest.mark.parametrize("unix", [False, True])
@pytest.mark.parametrize("path", ["/echo", "/wait"])
def test_a_client_that_has_only_finished_sending_gets_its_answers(
    tmp_path: Path, path: str, unix: bool
) -> None:
    async def story(place: Place) -> bytes:
        place.go_on.set()
        return await place.say(post(path, b"1") + post("/echo", b"2"), end=True)

    told = answers(tell(story, unix=str(tmp_path / "s") if unix else None))
    assert [each.body for each in told] == [b"1", b"2"]


def test_half_a_request_and_an_end_is_no_request() -> None:
    for stream in (b"POST /echo", post("/echo", b"body")[:-1], chunked("/echo", b"body")[:-1]):
        assert tell(lambda place, stream=stream: place.say(stream, end=True)) == b""


def vanish(place: Place, how: str) -> None:
    """Ask for what takes long, and go."""
    family = socket.AF_UNIX if place.unix else socket.AF_INET
    line = socket.socket(family)
    line.connect(place.address)
    line.sendall(post("/wait", b"x" * 1000))
    if how == "reset":
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    line.close()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("unix", [False, True])
def test_what_a_client_that_has_gone_asked_is_given_up(
    tmp_path: Path, how: str, unix: bool
) -> None:
    async def story(place: Place) -> None:
        reader, writer = await place.connect()
        writer.write(post("/wait"))
        await place.held.wait()
        # Its own thread: the loop must not see the request and the end at once.
        await asyncio.to_thread(vanish, place, how)
        await place.cancelled.wait()
        place.go_on.set()
        assert (await read_answer(reader)).status == 200
        writer.close()

    tell(story, unix=str(tmp_path / "s") if unix else None)
