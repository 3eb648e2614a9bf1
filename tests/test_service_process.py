"""The service as a process: slow and greedy clients cost it nothing, and it ends and swaps without losing a request."""

import http.client
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import hostile
from conftest import Toy
from service_process import Running
from shelfwise.client import Client, Listing
from shelfwise.errors import ServiceError

FORM = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("process")


@pytest.fixture(scope="module")
def service(saved: Path, folder: Path) -> Iterator[Running]:
    """One process for all tests here; the last one ends it."""
    shutil.copytree(saved, folder / "bundle")
    running = Running(folder / "bundle", folder)
    yield running
    running.process.kill()
    running.process.wait(10)


@pytest.fixture(scope="module")
def photos(toy: Toy) -> list[bytes]:
    return [path.read_bytes() for path in sorted((toy.directory / "images").iterdir())]


def head(length: str, path: str = "/v1/answer") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n{length}\r\n\r\n"
    ).encode()


def said(sock: socket.socket) -> tuple[int, bool]:
    """The status of the answer, and whether the connection ends after it."""
    sock.settimeout(20)
    answer = http.client.HTTPResponse(sock)
    answer.begin()
    answer.read()
    return answer.status, answer.getheader("Connection", "").lower() == "close"


class Load:
    """Clients that ask until they are told to stop, and note what became of every request."""

    def __init__(self, service: Running, photos: list[bytes], clients: int = 6) -> None:
        self.service, self.photos, self.stopping = service, photos, threading.Event()
        self.statuses: dict[str, int] = {}
        self.threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]
        for thread in self.threads:
            thread.start()

    def _ask(self, client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=30)
        number = 0
        while not self.stopping.is_set():
            number += 1
            name = f"{client}-{number}"
            body = FORM + self.photos[(client + number) % len(self.photos)] + b"\r\n--x--\r\n"
            headers = {"Content-Type": "multipart/form-data; boundary=x", "X-Request-ID": name}
            try:
                connection.request("POST", "/v1/answer", body, headers)
                answer = connection.getresponse()
                answer.read()
                self.statuses[name] = answer.status
            except (OSError, http.client.HTTPException):
                self.statuses[name] = 0
                connection.close()
                if self.service.process.poll() is not None:
                    return
                time.sleep(0.05)

    def end(self) -> dict[str, int]:
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)
        return self.statuses


def test_it_speaks_with_a_real_service(service: Running, toy: Toy):
    photos = sorted((toy.directory / "images").iterdir())[:6]
    with Client(service.url) as client:
        names = {entry["name"] for entry in client.taxonomy()["categories"]}
        assert names == {"Cups", "Plates", "Towels"}
        found = list(client.answer_many(Listing((photo,), id=photo.stem) for photo in photos))
        assert [each.id for each in found] == [photo.stem for photo in photos]
        assert all(each.values and each.bundle == client.bundle()["bundle"] for each in found)
        judged = client.audit(Listing((photos[0],), category="Cups", stated={"colour": "red"}))
        assert judged.values[0]["attribute"] == "colour"
        with pytest.raises(ServiceError, match="Did you mean 'Cups'") as error:
            client.answer(photos[0], category="Cusp")
        assert error.value.status == 422


def test_slow_greedy_and_hostile_clients_cost_nothing(service: Running, photos: list[bytes]):
    before = service.memory()
    slow = [service.connect() for _ in range(100)]
    for number, sock in enumerate(slow):
        sock.sendall(b"POST /v1/ans" if number % 2 else head("Content-Length: 50000") + FORM)
    greedy = service.connect()
    greedy.sendall(head("Content-Length: 1000000000") + FORM)
    assert said(greedy) == (413, True)
    endless = service.connect()
    endless.sendall(head("Transfer-Encoding: chunked"))
    with pytest.raises(OSError, match=r"."):
        endless.sendall(200 * (b"80000\r\n" + bytes(0x80000) + b"\r\n"))
    files = hostile.contents()
    bad = [data for data, kind in files.values() if kind is not None]
    with Client(service.url) as client:
        refused = list(client.answer_many(Listing((data,)) for data in bad))
        assert all(each.error and not each.cells for each in refused)
        begun = time.monotonic()
        assert client.answer(photos[0]).values
        assert time.monotonic() - begun < 5
    assert service.memory() < before + 400
    for sock in (*slow, greedy, endless):
        sock.close()
    told = [line for line in service.events("request") if line["status"] not in (200, 400, 413, 415, 422)]
    assert told == [], service.log.read_text()[-5000:]


LIES = {
    "a body shorter than stated": head("Content-Length: 500") + FORM,
    "a body longer than stated": head("Content-Length: 10") + FORM + bytes(3000),
    "a length that is none": head("Content-Length: many") + FORM,
    "a negative length": head("Content-Length: -1") + FORM,
    "two lengths": head("Content-Length: 5\r\nContent-Length: 500") + FORM,
    "a length and chunks": head("Content-Length: 5\r\nTransfer-Encoding: chunked") + b"0\r\n\r\n",
    "a coding there is not": head("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    "a chunk that is none": head("Transfer-Encoding: chunked") + b"ZZ\r\nabc\r\n0\r\n\r\n",
    "a chunk of endless size": head("Transfer-Encoding: chunked") + b"f" * 40 + b"\r\nabc",
    "a chunk shorter than stated": head("Transfer-Encoding: chunked") + b"5000\r\nabc",
    "a flood of headers": head("\r\n".join(f"X-{n}: {'y' * 500}" for n in range(2000))),
    "a header without end": head("X: " + "y" * 500_000),
    "a header with a nul": head("X: a\0b\r\nContent-Length: 0"),
    "a path without end": b"POST /" + b"a" * 300_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a path that climbs": b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a path with a nul": b"POST /v1/answer%00 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n",
    "no protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "another method": b"BREW /v1/answer HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a version there is not": b"POST /v1/answer HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
}


def test_requests_that_lie_are_refused_or_hung_up_on(service: Running, photos: list[bytes]):
    for name, content in LIES.items():
        sock = service.connect()
        sock.settimeout(15)
        got = b""
        try:
            sock.sendall(content)
            sock.shutdown(socket.SHUT_WR)
            while piece := sock.recv(65_536):
                got += piece
        except OSError:  # hung up on while it was sending
            pass
        sock.close()
        assert got == b"" or got[9:12] in (b"400", b"404", b"405", b"413", b"415", b"422", b"501"), (
            name,
            got[:300],
        )
    with Client(service.url) as client:
        assert client.answer(photos[0]).values
    assert {line["status"] for line in service.events("request")} <= {0, 200, 400, 404, 405, 413, 415, 422}


def test_a_new_bundle_that_is_broken_is_refused_and_said(service: Running, photos: list[bytes], folder: Path):
    path = folder / "bundle" / "taxonomy.json"
    text = path.read_text()
    path.write_text("{}")
    service.process.send_signal(signal.SIGHUP)
    service.wait_for(r'"event": "(bundle refused)"')
    reason = service.events("bundle refused")[0]["reason"]
    path.write_text(text)
    assert "taxonomy.json was changed" in reason
    with Client(service.url) as client:
        assert client.answer(photos[0]).values


def test_a_bundle_is_swapped_and_the_service_ended_under_load_without_a_loss(
    service: Running, photos: list[bytes], folder: Path
):
    load = Load(service, photos)
    time.sleep(1.0)
    index = folder / "bundle" / "bundle.json"
    index.write_text(index.read_text() + "\n")
    service.process.send_signal(signal.SIGHUP)
    service.wait_for(r'"event": "(bundle loaded)"')
    time.sleep(0.5)
    swapped = dict(load.statuses)
    assert set(swapped.values()) == {200}
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(40) == 0
    statuses = load.end()
    lines = [line for line in service.events("request") if line["request_id"] in statuses]
    began = {line["request_id"]: line["status"] for line in lines}
    assert len(began) > 20
    assert {name: status for name, status in began.items() if status != 200} == {}
    assert [name for name in began if statuses[name] != 200] == []
    assert len({line["bundle"] for line in lines}) == 2
    assert service.events("ended")
