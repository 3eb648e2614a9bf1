"""The service over HTTP: what it answers, what it refuses and with which words, and who may ask."""

import gc
import json
import logging
import shutil
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

import hostile
import hostile_uploads
from conftest import Toy
from shelfwise.bundle import Bundle
from shelfwise.errors import BundleError, UsageError
from shelfwise.predictions import Machine
from shelfwise.service.access import Access
from shelfwise.service.app import make_app
from shelfwise.service.keys import KeyRing
from shelfwise.service.options import ServiceOptions, is_loopback
from shelfwise.service.problems import Refusal
from shelfwise.service.run import run
from shelfwise.service.serving import Serving

HERE = "http://127.0.0.1"
ROUTES = (
    ("POST", "/v1/answer", "predict"),
    ("POST", "/v1/audit", "predict"),
    ("GET", "/v1/taxonomy", "predict"),
    ("GET", "/v1/bundle", "predict"),
    ("GET", "/openapi.json", "predict"),
    ("GET", "/metrics", "admin"),
    ("POST", "/v1/bundle", "admin"),
)


@pytest.fixture(scope="module")
def served(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy bundle in a place where it may be replaced."""
    import shelfwise.testing  # noqa: F401  (registers the backbone "toy")

    path = tmp_path_factory.mktemp("served") / "bundle"
    shutil.copytree(saved, path)
    return path


@pytest.fixture(scope="module")
def serving(served: Path, machine: Machine) -> Serving:
    return Serving(served, machine)


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing(tmp_path / "keys.sqlite")


def client_of(serving: Serving, ring: KeyRing, *, loopback: bool = True, **options: Any) -> TestClient:
    given = ServiceOptions(**options)
    app = make_app(serving, Access(ring, loopback, given.rate), given)
    return TestClient(app, base_url=HERE, raise_server_exceptions=False)


@pytest.fixture
def client(serving: Serving, ring: KeyRing) -> Iterator[TestClient]:
    with client_of(serving, ring) as client:
        yield client


@pytest.fixture(scope="module")
def photos(toy: Toy) -> list[Path]:
    return sorted((toy.directory / "images").iterdir())


def form(*photos: Path | bytes, **fields: str) -> dict[str, Any]:
    parts: list[Any] = [(name, (None, cell)) for name, cell in fields.items()]
    for photo in photos:
        parts.append(("image", ("p.png", photo if isinstance(photo, bytes) else photo.read_bytes())))
    return {"files": parts}


# Answers


def test_an_answer_is_that_of_the_library(
    client: TestClient, bundle: Bundle, machine: Machine, photos: list[Path]
):
    for photo, category in ((photos[0], None), (photos[1], "Plates")):
        fields = {} if category is None else {"category": category}
        told = client.post("/v1/answer", **form(photo, id="A", text="Large blue", **fields))
        assert told.status_code == 200
        found = told.json()
        one = bundle.answer_one(photo, id="A", category=category, text="Large blue", machine=machine)
        del found["bundle"]
        assert found == json.loads(json.dumps(one))


def test_a_promise_is_kept_as_by_the_library(
    client: TestClient, bundle: Bundle, machine: Machine, photos: list[Path]
):
    states = set()
    for photo in photos[:12]:
        found = client.post("/v1/answer", **form(photo, precision="0.9")).json()
        one = bundle.answer_one(photo, precision=0.9, machine=machine)
        assert found["answers"] == json.loads(json.dumps(one["answers"]))
        states |= {cell["state"] for cell in found["answers"].values()}
    assert len(states) > 1


def test_answers_do_not_depend_on_who_else_asks(client: TestClient, photos: list[Path]):
    alone = [client.post("/v1/answer", **form(photo)).json() for photo in photos[:12]]
    together: dict[int, Any] = {}

    def ask(number: int) -> None:
        precision = {"precision": "0.9"} if number % 3 == 0 else {}
        found = client.post("/v1/answer", **form(photos[number], **precision)).json()
        if not precision:
            together[number] = found

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(together) == 8
    assert all(alone[number] == found for number, found in together.items())


def test_several_photos_are_of_one_product(
    client: TestClient, bundle: Bundle, machine: Machine, photos: list[Path]
):
    found = client.post("/v1/answer", **form(photos[0], photos[2])).json()
    one = bundle.answer_one([photos[0], photos[2]], machine=machine)
    assert found["answers"] == json.loads(json.dumps(one["answers"]))


def test_what_is_known_without_a_photo_is_told_with_the_error():
    from shelfwise.service.asking import _single

    price = {"value": 5.0, "state": "answered"}
    assert _single({"answers": {"price": price}, "error": "cut off"}).status_code == 200
    with pytest.raises(Refusal) as refusal:
        _single({"answers": {}, "error": "cut off"})
    assert (refusal.value.status_code, refusal.value.code) == (422, "no_answer")


def test_a_batch_answers_every_product_in_its_place(client: TestClient):
    products = [{"id": "a", "text": "Large cup"}, {"id": "b", "text": "x", "category": "Cusp"}, {"text": "y"}]
    found = client.post("/v1/answer", json={"products": products}).json()["products"]
    assert [each["id"] for each in found] == ["a", "b", None]
    assert "Did you mean 'Cups'" in found[1]["error"]
    assert "bundle" in found[0]


def test_an_audit_finds_what_the_picture_contradicts(client: TestClient, toy: Toy, photos: list[Path]):
    row = next(row for row in range(20, 40) if toy.catalog.frame["colour"][row])
    labels = toy.catalog.frame.row(row, named=True)
    values = toy.catalog.taxonomy.choice(labels["category"], "colour").values
    wrong = next(value for value in values if value != labels["colour"])
    answers = {}
    for stated in (labels["colour"], wrong):
        body = form(photos[row], category=labels["category"], stated=json.dumps({"colour": stated}))
        told = client.post("/v1/audit", **body)
        assert told.status_code == 200, told.text
        found = {value["attribute"]: value for value in told.json()["values"]}
        assert set(found) == {"colour"}
        answers[stated] = found["colour"]
    assert answers[wrong]["seen"] == labels["colour"]
    assert answers[wrong]["odds"] > 10 * answers[labels["colour"]]["odds"]


def test_taxonomy_and_bundle_are_told(client: TestClient, bundle: Bundle):
    assert client.get("/v1/taxonomy").json() == json.loads(json.dumps(bundle.taxonomy.table()))
    told = client.get("/v1/bundle").json()
    assert told["summary"]["taxonomy"] == bundle.taxonomy.hash
    assert len(told["bundle"]) == 64


# Refusals


def told(answer: Any) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["request_id"] == answer.headers["x-request-id"]
    return answer.status_code, body["code"]


@pytest.mark.parametrize(
    ("fields", "status", "code", "said"),
    [
        ({"category": "Cusp"}, 422, "cannot", "Did you mean 'Cups'"),
        ({"category": ""}, 422, "field", "category"),
        ({"id": "x" * 501}, 422, "field", "id"),
        ({"text": "x" * 20_001}, 422, "field", "text"),
        (
            {"colour": "red"},
            422,
            "field",
            "'colour' is not known; the form takes image, category, id, text, precision",
        ),
        ({"precision": "1.5"}, 422, "precision", "between 0 and 1"),
        ({"precision": "nan"}, 422, "precision", "between 0 and 1"),
        ({"precision": "much"}, 422, "precision", "between 0 and 1"),
        ({"stated": "{}"}, 422, "field", "not known"),
    ],
)
def test_wrong_fields_are_refused(
    client: TestClient, photos: list[Path], fields: dict[str, str], status: int, code: str, said: str
):
    answer = client.post("/v1/answer", **form(photos[0], **fields))
    assert told(answer) == (status, code)
    assert said in answer.json()["detail"]


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"", "application/json", 422, "json"),
        (b"{", "application/json", 422, "json"),
        (b"[1]", "application/json", 422, "json"),
        (b'{"products": []}', "application/json", 422, "json"),
        (b'{"products": [{"text": "x", "more": 1}]}', "application/json", 422, "json"),
        (b'{"products": [{}]}', "application/json", 422, "nothing"),
        (b'{"products": [{"text": 5}]}', "application/json", 422, "json"),
        (b"[" * 100_000, "application/json", 422, "json"),
        (b'{"products": [{"urls": ["http://a/b"]}]}', "application/json", 422, "urls"),
        (b"hello", "text/plain", 415, "media_type"),
        (b"hello", "multipart/form-data", 400, "form"),
        (b"hello", "multipart/form-data; boundary=x", 400, "form"),
        (b"--x\r\n\r\nhello\r\n--x--", "multipart/form-data; boundary=x", 400, "form"),
    ],
)
def test_content_that_cannot_be_read_is_refused(
    client: TestClient, content: bytes, kind: str, status: int, code: str
):
    assert told(client.post("/v1/answer", content=content, headers={"content-type": kind})) == (status, code)


def test_nothing_to_look_at_is_refused(client: TestClient):
    assert told(client.post("/v1/answer", **form(id="x"))) == (422, "nothing")


def test_too_many_photos_and_products_are_refused(serving: Serving, ring: KeyRing, photos: list[Path]):
    with client_of(serving, ring, max_images=2, max_items=2) as client:
        assert told(client.post("/v1/answer", **form(*photos[:3]))) == (422, "too_many")
        batch = {"products": [{"text": "x"}] * 3}
        assert told(client.post("/v1/answer", json=batch)) == (413, "too_many")


def test_too_large_requests_and_photos_are_refused(serving: Serving, ring: KeyRing, photos: list[Path]):
    with client_of(serving, ring, max_body=20_000, max_image=10_000) as client:
        assert told(client.post("/v1/answer", **form(b"x" * 30_000))) == (413, "too_large")
        assert told(client.post("/v1/answer", **form(b"x" * 15_000))) == (413, "image_too_large")
        kind = {"content-type": "application/json"}
        endless = (b" " * 1000 for _ in range(100))
        assert told(client.post("/v1/answer", content=endless, headers=kind)) == (413, "too_large")
        assert client.post("/v1/answer", **form(photos[0])).status_code == 200
    with client_of(serving, ring) as client:
        assert told(client.post("/v1/bundle", content=b"x" * 70_000)) == (413, "too_large")


def test_hostile_files_are_refused_with_a_reason_and_the_service_goes_on(
    client: TestClient, photos: list[Path]
):
    files = hostile.contents()
    bad = {name: data for name, (data, kind) in files.items() if kind is not None}
    good = {name: data for name, (data, kind) in files.items() if kind is None}
    assert len(bad) > 20
    for name, data in bad.items():
        answer = client.post("/v1/answer", **form(data))
        status, code = told(answer)
        assert status in (413, 415, 422), (name, answer.text)
        assert code.startswith("image_") or code == "no_answer", (name, answer.text)
        assert len(answer.json()["detail"]) > 20
        assert "/tmp" not in answer.text
        assert "photo-" in answer.text or code.startswith("image_"), (name, answer.text)
    for name, data in good.items():
        assert client.post("/v1/answer", **form(data)).status_code == 200, name
    assert client.post("/v1/answer", **form(photos[0])).status_code == 200


def test_hostile_requests_are_refused_with_a_reason_and_in_time(
    serving: Serving, ring: KeyRing, photos: list[Path]
):
    requests = hostile_uploads.uploads()
    assert len(requests) + len(hostile.contents()) > 150
    with client_of(serving, ring, max_body=8_000_000, max_image=2_000_000) as client:
        for name, each in requests.items():
            begun = time.thread_time()
            answer = client.post("/v1/answer", content=each.body, headers=dict(each.headers))
            assert answer.status_code in each.allowed, (name, answer.status_code, answer.text[:300])
            assert time.thread_time() - begun < 2, name
            if answer.status_code != 200:
                told(answer)
                assert len(answer.json()["detail"]) >= 15, (name, answer.text)
                assert "/tmp" not in answer.text
            elif answer.json()["error"] is not None:
                assert not answer.json()["answers"]
        assert client.post("/v1/answer", **form(photos[0])).status_code == 200


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "x", "3600001", "", "１"])
def test_a_deadline_that_is_none_is_refused(client: TestClient, photos: list[Path], value: str):
    headers = {"X-Deadline-Ms": value.encode()}
    assert told(client.post("/v1/answer", headers=headers, **form(photos[0]))) == (422, "deadline")


def test_a_full_service_says_when_to_come_back(serving: Serving, ring: KeyRing, photos: list[Path]):
    slow = SlowServing(serving)
    with client_of(slow, ring, queue=2, batch=1) as client:
        answers: list[Any] = []
        threads = [
            threading.Thread(target=lambda: answers.append(client.post("/v1/answer", **form(photos[0]))))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        while len(answers) < 5:
            pass
        slow.go.set()
        for thread in threads:
            thread.join()
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) == 5
    assert {told(answer) for answer in refused} == {(503, "queue_full")}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)


class SlowServing(Serving):
    """Answers when it is let."""

    def __init__(self, serving: Serving) -> None:
        self.path, self.now, self.go = serving.path, serving.now, threading.Event()

    def work(self, task: Any, products: Any) -> Any:
        self.go.wait(20)
        return super().work(task, products)


def test_a_fault_is_told_without_what_it_was(
    serving: Serving, ring: KeyRing, photos: list[Path], caplog: pytest.LogCaptureFixture
):
    class Broken(SlowServing):
        def work(self, task: Any, products: Any) -> Any:
            raise RuntimeError("the secret is open sesame")

    with client_of(Broken(serving), ring) as client:
        answer = client.post("/v1/answer", **form(photos[0]))
        assert told(answer) == (500, "internal")
        assert "sesame" not in answer.text
        assert client.get("/v2/health/ready").status_code == 200


def test_an_address_that_is_taken_is_said(serving: Serving, ring: KeyRing):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        app = make_app(serving, Access(ring, True), ServiceOptions(port=taken.getsockname()[1]))
        with pytest.raises(UsageError, match=r"cannot listen on 127\.0\.0\.1"):
            run(app)


# Who may ask


def test_without_keys_loopback_asks_freely_and_only_from_this_machine(client: TestClient):
    assert client.get("/v1/bundle").status_code == 200
    for headers in (
        {"host": "shop.example"},
        {"origin": "https://shop.example"},
        {"sec-fetch-site": "cross-site"},
        {"host": "127.0.0.1.shop.example"},
        {"origin": "null"},
    ):
        assert told(client.get("/v1/bundle", headers=headers)) == (401, "no_key"), headers
    assert client.get("/v1/bundle", headers={"host": "localhost:8000"}).status_code == 200
    assert client.get("/v1/bundle", headers={"host": "[::1]:8000"}).status_code == 200


@pytest.mark.parametrize(("method", "route", "scope"), ROUTES)
def test_with_keys_every_route_needs_one_with_its_scope(
    serving: Serving, ring: KeyRing, method: str, route: str, scope: str
):
    others = [other for other in ("predict", "review", "admin") if other != scope]
    right, wrong = ring.add("right", [scope]), ring.add("wrong", others)
    with client_of(serving, ring) as client:

        def ask(**headers: str) -> Any:
            return client.request(method, route, headers=headers)

        refused = ask()
        assert told(refused) == (401, "no_key")
        assert "Bearer" in refused.headers["www-authenticate"]
        assert told(ask(authorization="Bearer sw_wrong")) == (401, "bad_key")
        assert told(ask(authorization=f"Bearer {wrong}")) == (403, "scope")
        assert told(ask(cookie=f"shelfwise_key={right}")) == (401, "no_key")
        assert told(ask(authorization=f"Basic {right}")) == (401, "bad_key")
        assert ask(authorization=f"Bearer {right}").status_code not in (401, 403)
        assert ask(**{"X-API-Key": right}).status_code not in (401, 403)
        ring.revoke("right")
        assert told(ask(authorization=f"Bearer {right}")) == (401, "bad_key")
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/v2/health/ready").status_code == 200


def test_the_cookie_counts_on_the_review_pages_only(serving: Serving, ring: KeyRing, tmp_path: Path):
    from shelfwise.service.desk import Desk

    anna, till = ring.add("anna", ["review", "predict"]), ring.add("till", ["predict"])
    app = make_app(serving, Access(ring, True), desk=Desk.open(tmp_path / "desk.sqlite"))
    with TestClient(app, base_url=HERE, follow_redirects=False) as client:
        statuses = {}
        for page in ("/review", "/reviews", "/v1/bundle"):
            for name, secret in (("none", ""), ("anna", anna), ("till", till)):
                headers = {"cookie": f"shelfwise_key={secret}"} if secret else {}
                statuses[page, name] = client.get(page, headers=headers).status_code
    assert [statuses["/review", name] for name in ("none", "anna", "till")] == [401, 200, 403]
    assert {statuses["/v1/bundle", name] for name in ("none", "anna", "till")} == {401}
    assert {statuses["/reviews", name] for name in ("none", "anna", "till")} == {404}


def test_on_another_bind_nothing_is_answered_without_keys(serving: Serving, ring: KeyRing):
    with client_of(serving, ring, loopback=False) as client:
        for method, route, _ in ROUTES:
            assert told(client.request(method, route)) == (401, "no_key")
        assert client.get("/v2/health/live").status_code == 200
        secret = ring.add("late", ["predict"])
        assert client.get("/v1/bundle", headers={"x-api-key": secret}).status_code == 200


def test_every_route_of_the_document_is_among_those_checked(client: TestClient):
    paths = client.get("/openapi.json").json()["paths"]
    there = {(method.upper(), path) for path, routes in paths.items() for method in routes}
    health = {("GET", "/v2/health/live"), ("GET", "/v2/health/ready")}
    assert there == {(method, path) for method, path, _ in ROUTES if path != "/openapi.json"} | health
    for path, routes in paths.items():
        for route in routes.values():
            assert bool(route["security"]) != path.startswith("/v2/health/")


def test_a_key_that_asks_too_often_is_told_to_wait(serving: Serving, ring: KeyRing):
    slow, free = ring.add("slow", ["predict"], rate=0.01), ring.add("free", ["predict"])
    with client_of(serving, ring) as client:
        assert client.get("/v1/bundle", headers={"x-api-key": slow}).status_code == 200
        refused = client.get("/v1/bundle", headers={"x-api-key": slow})
        assert told(refused) == (429, "rate")
        assert int(refused.headers["retry-after"]) >= 90
        for _ in range(5):
            assert client.get("/v1/bundle", headers={"x-api-key": free}).status_code == 200


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("shop.example", False),
        ("", False),
    ],
)
def test_which_hosts_are_this_machine(host: str, local: bool):
    assert is_loopback(host) == local


# Photos by address


class Site(BaseHTTPRequestHandler):
    photo = b""

    def do_GET(self) -> None:
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/latest")
            self.end_headers()
            return
        body = self.photo if self.path == "/good" else b"<html>"
        self.send_response(200 if self.path != "/none" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def site(photos: list[Path]) -> Iterator[str]:
    Site.photo = photos[0].read_bytes()
    server = HTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_photos_by_address_are_fetched_by_the_rules_of_downloads(
    serving: Serving, ring: KeyRing, photos: list[Path], site: str
):
    urls = [f"{site}/good", f"{site}/away", f"{site}/html", f"{site}/none", "file:///etc/passwd"]
    batch = {"products": [{"id": url, "urls": [url]} for url in urls]}
    with client_of(serving, ring, allow_urls=True, allow_private=True) as client:
        found = client.post("/v1/answer", json=batch).json()["products"]
        assert found[0]["answers"] == client.post("/v1/answer", **form(photos[0])).json()["answers"]
        said = [each["error"] for each in found]
        assert said[0] is None
        for word, error in zip(("link-local", "HTML", "404", "file"), said[1:], strict=True):
            assert word in error
        assert all(each["answers"] == {} for each in found[1:])
    with client_of(serving, ring, allow_urls=True) as client:
        found = client.post("/v1/answer", json=batch).json()["products"]
        assert "loopback" in found[0]["error"]


# The bundle


def test_a_new_bundle_takes_the_place_of_the_old_one(
    served: Path, machine: Machine, ring: KeyRing, photos: list[Path]
):
    serving = Serving(served, machine)
    with client_of(serving, ring) as client:
        before = client.post("/v1/answer", **form(photos[0])).json()
        assert client.post("/v1/bundle").json()["bundle"] == before["bundle"]
        index = served / "bundle.json"
        text = index.read_text()
        try:
            index.write_text(text + "\n")
            told_ = client.post("/v1/bundle").json()
            after = client.post("/v1/answer", **form(photos[0])).json()
            assert told_["bundle"] == after["bundle"] != before["bundle"]
            assert after["answers"] == before["answers"]
            index.write_text("{}")
            assert told(client.post("/v1/bundle")) == (409, "bundle")
            assert client.post("/v1/answer", **form(photos[0])).json() == after
        finally:
            index.write_text(text)


def test_an_older_bundle_is_let_go_although_what_answers_is_kept_from_the_collector(
    served: Path, machine: Machine
):
    serving = Serving(served, machine)
    assert gc.get_freeze_count() > 10_000
    before = weakref.ref(serving.now.bundle)
    serving.swap()
    assert before() is None
    assert serving.now.bundle.taxonomy.categories


def test_a_bundle_that_does_not_answer_is_not_taken(serving: Serving):
    with pytest.raises(BundleError, match="does not answer"):
        Serving(serving.path, replace(serving.now.machine, engine="no-such-engine"))


# Every answer


def test_headers_ids_and_counts(client: TestClient, photos: list[Path]):
    answer = client.post("/v1/answer", headers={"X-Request-ID": "mine-1"}, **form(photos[0]))
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    other = client.get("/v2/health/live", headers={"X-Request-ID": "x\ty"})
    assert other.headers["x-request-id"] != "x\ty"
    nowhere = client.get("/nowhere")
    assert told(nowhere) == (404, "not_found")
    assert "/openapi.json" in nowhere.json()["detail"]
    wrong = client.delete("/v1/bundle")
    assert told(wrong) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET, POST"
    text = client.get("/metrics").text
    assert 'shelfwise_requests_total{method="POST",route="/v1/answer",status="200"} 1.0' in text
    assert 'shelfwise_refused_total{code="not_found"} 1.0' in text
    assert "shelfwise_batch_products_sum 1.0" in text


def test_logs_are_lines_of_json_without_secrets(
    serving: Serving, ring: KeyRing, photos: list[Path], caplog: pytest.LogCaptureFixture
):
    from shelfwise.service.logs import JsonLines

    secret = ring.add("till", ["predict"])
    caplog.set_level(logging.INFO, "shelfwise.service")
    with client_of(serving, ring) as client:
        headers = {"authorization": f"Bearer {secret}", "cookie": f"shelfwise_key={secret}"}
        body = form(photos[0], text="private words")
        client.post(f"/v1/answer?key={secret}", headers=headers, **body)
        client.get("/v1/bundle", headers={"authorization": "Bearer sw_guess"})
    lines = [JsonLines().format(record) for record in caplog.records if record.name == "shelfwise.service"]
    requests = [line for line in map(json.loads, lines) if line["event"] == "request"]
    assert [(line["status"], line["key"], line["code"]) for line in requests] == [
        (200, "till", None),
        (401, None, "bad_key"),
    ]
    assert requests[0]["route"] == "/v1/answer"
    assert requests[0]["bundle"] == serving.now.digest[:12]
    for word in (secret, "sw_guess", "private"):
        assert word not in "".join(lines)


def test_the_document_has_an_example_of_every_content(client: TestClient):
    paths = client.get("/openapi.json").json()["paths"]
    for path in ("/v1/answer", "/v1/audit"):
        content = paths[path]["post"]["requestBody"]["content"]
        assert "example" in content["multipart/form-data"]
    assert content.keys() == {"multipart/form-data", "application/json"}
    text = client.get("/openapi.json").text
    assert '"#/$defs' not in text


def test_schemathesis_finds_nothing(serving: Serving, ring: KeyRing, photos: list[Path]):
    import schemathesis
    from schemathesis.checks import CHECKS, load_all_checks

    load_all_checks()
    app = make_app(serving, Access(ring, True))
    headers = {"host": "127.0.0.1", "X-API-Key": ring.add("all", ["predict", "admin"])}
    config = schemathesis.Config.from_dict({"headers": headers})
    with TestClient(app, base_url=HERE):
        schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=headers, config=config)
        tried = 0
        for found in schema.get_all_operations():
            tried += run_cases(found.ok(), list(CHECKS.get_all()), photos[0].read_bytes(), headers)
    assert tried > 60


def named(body: Any, photo: bytes, audit: bool) -> Any:
    """Return content that is as the document says with things that exist: a photo, a category, an attribute."""
    from schemathesis.transport.serialization import Binary

    stated: Any = {"colour": "red"}
    if not isinstance(body, dict) or "products" not in body:
        fields = {name: cell for name, cell in (body or {}).items() if name in ("id", "text", "precision")}
        fields |= {"category": "Cups", "stated": json.dumps(stated)} if audit else {}
        return fields | {"image": [Binary(photo)]}
    keep = ("id", "text") if not audit else ("id",)
    for product in body["products"]:
        for name in set(product) - set(keep):
            del product[name]
        if not isinstance(product.get("text"), str):
            product["text"] = "Large cup"
        product |= {"category": "Cups", "stated": stated} if audit else {}
    return body


def run_cases(operation: Any, checks: list[Any], photo: bytes, headers: dict[str, str]) -> int:
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis import GenerationMode

    tried = 0

    def run_mode(mode: GenerationMode) -> None:
        @settings(
            max_examples=12 if operation.body else 2,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            nonlocal tried
            tried += 1
            if mode is GenerationMode.NEGATIVE or not operation.body:
                case.call_and_validate(checks=checks, headers=headers)
                return
            # Random bytes are no photo and random words no category. With things that exist all of it is answered, and
            # that is asked for here: of content that is replaced, schemathesis no longer knows what the document says.
            case.body = named(case.body, photo, operation.path.endswith("audit"))
            apart = ("positive_data_acceptance", "negative_data_rejection")
            found = case.call_and_validate(
                checks=[check for check in checks if check.__name__ not in apart], headers=headers
            )
            made_up = "authorization" in {name.lower() for name in case.headers or {}}
            assert found.status_code == (401 if made_up else 200), found.text

        check()

    run_mode(GenerationMode.POSITIVE)
    if operation.body or operation.headers:  # else there is nothing that could be wrong
        run_mode(GenerationMode.NEGATIVE)
    return tried
