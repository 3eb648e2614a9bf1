"""The Python client: what it asks, when it tries again, and what its errors say."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from shelfwise.client import Answer, Client, Listing
from shelfwise.errors import ServiceError, UsageError

FOUND = {"id": "a", "category": "Cups", "looks_like": None, "answers": {}, "error": None, "bundle": "b" * 64}


class Played:
    """A service that answers by a script, and keeps what it was asked."""

    def __init__(self, *script: Callable[[httpx.Request], httpx.Response] | int) -> None:
        self.script, self.asked = list(script), list[httpx.Request]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.asked.append(request)
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if not isinstance(step, int):
            return step(request)
        if step == 200:
            return httpx.Response(200, json=FOUND)
        body = {"code": "queue_full", "detail": "too many products wait"}
        return httpx.Response(step, json=body, headers={"Retry-After": "1"})

    def client(self, **options: object) -> Client:
        return Client("http://service", transport=httpx.MockTransport(self), **options)  # type: ignore[arg-type]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


def broken(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


def test_it_sends_photos_fields_deadline_and_key(tmp_path: Path):
    path = tmp_path / "p.jpg"
    path.write_bytes(b"on disk")
    played = Played(200)
    with played.client(key="sw_x", deadline=2.5) as client:
        found = client.answer([path, b"in memory"], category="Cups", id="a", text="Tea cup", precision=0.9)
    assert found == Answer("a", "Cups", None, {}, None, "b" * 64)
    (asked,) = played.asked
    assert asked.headers["x-deadline-ms"] == "2500"
    assert asked.headers["authorization"] == "Bearer sw_x"
    for part in (b"on disk", b"in memory", b"Tea cup", b"0.9", b'name="category"'):
        assert part in asked.content


def test_a_text_alone_is_a_form_too():
    played = Played(200)
    with played.client() as client:
        client.answer(text="Tea cup")
    assert played.asked[0].headers["content-type"].startswith("multipart/form-data; boundary=")


@pytest.mark.parametrize("status", [429, 503])
def test_it_waits_as_long_as_it_is_told(pauses: list[float], status: int):
    played = Played(status, status, 200)
    with played.client() as client:
        assert client.answer(b"x").id == "a"
    assert len(played.asked) == 3
    assert all(1.0 <= pause <= 1.5 for pause in pauses)


def test_it_gives_up_after_its_attempts(pauses: list[float]):
    played = Played(503)
    with played.client(attempts=3) as client, pytest.raises(ServiceError, match="too many products") as error:
        client.answer(b"x")
    assert (error.value.status, error.value.code, error.value.retry_after) == (503, "queue_full", 1.0)
    assert (len(played.asked), len(pauses)) == (3, 2)


@pytest.mark.parametrize("status", [401, 403, 413, 415, 422, 500])
def test_what_is_refused_for_good_is_not_asked_again(pauses: list[float], status: int):
    played = Played(status)
    with played.client() as client, pytest.raises(ServiceError) as error:
        client.answer(b"x")
    assert (error.value.status, len(played.asked), pauses) == (status, 1, [])


def test_a_broken_connection_is_tried_again_but_a_swap_is_not(pauses: list[float]):
    played = Played(broken, 200)
    with played.client() as client:
        assert client.answer(b"x").id == "a"
    played = Played(broken)
    with played.client() as client, pytest.raises(ServiceError, match="cannot be reached") as error:
        client.swap()
    assert (error.value.status, len(played.asked)) == (0, 1)


def test_many_come_in_order_and_a_bad_photo_stops_nothing(pauses: list[float]):
    def answer(request: httpx.Request) -> httpx.Response:
        if b"bad" in request.content:
            return httpx.Response(422, json={"code": "no_answer", "detail": "cut off"})
        name = request.content.split(b'name="id"\r\n\r\n')[1].split(b"\r\n")[0].decode()
        return httpx.Response(200, json={**FOUND, "id": name})

    listings = (Listing((b"bad" if n == 7 else b"x",), id=str(n)) for n in range(30))
    with Played(answer).client() as client:
        found = list(client.answer_many(listings, at_once=4))
    assert [each.id for each in found] == [str(n) for n in range(30)]
    assert "cut off" in (found[7].error or "")
    with Played(401).client() as client, pytest.raises(ServiceError):
        list(client.answer_many([Listing((b"x",))]))


def test_a_page_of_something_else_is_no_answer():
    def proxy(request: httpx.Request) -> httpx.Response:
        return httpx.Response(502, text="<html>Bad gateway</html>")

    with Played(proxy).client() as client, pytest.raises(ServiceError, match="502 Bad Gateway"):
        client.taxonomy()


def test_a_photo_that_is_not_there_is_said_before_anything_is_asked(tmp_path: Path):
    played = Played(200)
    with played.client() as client, pytest.raises(UsageError, match=r"none\.jpg"):
        client.answer(tmp_path / "none.jpg")
    assert not played.asked
    with pytest.raises(UsageError, match="positive deadline"):
        Client("http://service", deadline=0)


def test_values_and_suspects_are_picked_out():
    cells = {"colour": {"value": "red"}, "size": {"value": None}}
    assert Answer(None, None, None, cells, None, "").values == {"colour": "red"}
    judged = {**FOUND, "values": [{"attribute": "a", "suspect": True}, {"attribute": "b", "suspect": False}]}
    with Played(lambda _: httpx.Response(200, json=judged)).client() as client:
        found = client.audit(Listing((b"x",), category="Cups", stated={"a": "1"}))
    assert [value["attribute"] for value in found.suspects] == ["a"]
