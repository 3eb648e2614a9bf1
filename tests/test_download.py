"""Photos fetched from a server that breaks every rule; addresses that must never be connected to; kills and resumes."""

import collections
import ipaddress
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shelfwise as sw
from conftest import Shell
from faulty_server import FOREVER, Server, answer, photo, running
from shelfwise.data.addresses import forbidden, read_address
from shelfwise.data.download import Downloads, download
from shelfwise.data.images import content_digest, open_image
from shelfwise.data.terms import DownloadOptions, NotFetched
from shelfwise.data.turns import Turns
from shelfwise.data.wanted import split_cell
from shelfwise.errors import CatalogError, ShelfwiseError, UsageError
from shelfwise.locate import file_stem

QUICK = DownloadOptions(
    allow_private=True, idle=0.6, total=2.0, wait=0.02, longest_wait=1.0, attempts=3, max_bytes=1_000_000
)
PUBLIC = "93.184.216.34"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as found:
        yield found


def fetch(table: dict[str, list[Any]] | list[str], out: Path, **options: Any) -> Downloads:
    """Download a table, or URLs with the ids 0, 1 ..."""
    columns = (
        table if isinstance(table, dict) else {"id": [str(k) for k in range(len(table))], "image": table}
    )
    return download(pl.DataFrame(columns), out, options=QUICK.model_copy(update=options))


def outcome(found: Downloads) -> dict[str, tuple[str, str | None]]:
    return {row["id"]: (row["status"], row["reason"]) for row in found.frame.iter_rows(named=True)}


def strays(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if ".tmp-" in path.name]


class Door:
    """Stands in for ``connect``: notes where a connection goes, and leads public addresses to the server."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, port: int, names: dict[str, list[list[str]]]) -> None:
        self.tried: list[str] = []
        self.asked: collections.Counter[str] = collections.Counter()
        real, resolve = socket.socket.connect, socket.getaddrinfo

        def connect(sock: socket.socket, place: tuple[Any, ...]) -> None:
            self.tried.append(place[0])
            real(sock, ("127.0.0.1", port) if place[0] == PUBLIC else place)

        def lookup(host: str, port: int, **words: Any) -> list[Any]:
            if host not in names:
                try:
                    ipaddress.ip_address(host)
                except ValueError:
                    raise socket.gaierror(socket.EAI_NONAME, "unknown") from None
                return resolve(host, port, **words)
            turns = names[host]
            addresses = turns[min(self.asked[host], len(turns) - 1)]
            self.asked[host] += 1
            kinds = [socket.AF_INET6 if ":" in one else socket.AF_INET for one in addresses]
            return [
                (
                    kind,
                    socket.SOCK_STREAM,
                    6,
                    "",
                    (one, port, 0, 0) if kind == socket.AF_INET6 else (one, port),
                )
                for kind, one in zip(kinds, addresses, strict=True)
            ]

        monkeypatch.setattr(socket.socket, "connect", connect)
        monkeypatch.setattr(socket, "getaddrinfo", lookup)


NAMES = {
    "inside.example": [["10.1.2.3"]],
    "metadata.example": [["169.254.169.254"]],
    "loop.example": [["127.0.0.1"]],
    "six.example": [["::1"]],
    "unique.example": [["fd00::5"]],
    "mapped.example": [["::ffff:10.0.0.1"]],
    "nat.example": [["64:ff9b::a00:1"]],
    "both.example": [[PUBLIC, "192.168.1.1"]],
    "last.example": [[PUBLIC, "2606:2800:220:1::1", "fe80::1"]],
    "good.example": [[PUBLIC]],
    "rebind.example": [[PUBLIC], ["127.0.0.1"]],
}
HOSTILE = [
    "http://127.0.0.1/",
    "http://127.0.0.1:22/",
    "http://127.1/",
    "http://127.0.1/",
    "http://2130706433/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0x7F.1/",
    "http://127.000.000.001/",
    "http://127.0.0.1./",
    "http://１２７.０.０.１/",
    "http://①②⑦.⓪.⓪.①/",
    "http://127。0。0。1/",
    "http://%31%32%37.0.0.1/",
    "http://0/",
    "http://0.0.0.0/",
    "http://0.1.2.3/",
    "http://10.0.0.1/",
    "http://10.255.255.255:8080/admin",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.0.1/",
    "http://100.64.0.1/",
    "http://100.127.255.255/",
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.170.2/v2/credentials",
    "http://2852039166/latest/meta-data/",
    "http://192.0.0.192/",
    "http://192.0.2.1/",
    "http://192.88.99.1/",
    "http://198.18.0.1/",
    "http://198.51.100.7/",
    "http://203.0.113.7/",
    "http://224.0.0.1/",
    "http://239.255.255.250:1900/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://256.256.256.256/",
    "http://1.2.3.4.5/",
    "http://[::1]/",
    "http://[::]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b:1::1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:53aa:64c:0:fbff:80ff:fffe]/",
    "http://[2001:db8::1]/",
    "http://[fc00::1]/",
    "http://[fd12:3456::1]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://[4000::1]/",
    "http://[::1/",
    "http://[v1.fe80::a]/",
    "http://user:secret@good.example/1.jpg",
    "http://good.example@127.0.0.1/",
    "http://good.example:80@10.0.0.1/",
    "http://good.example\\@127.0.0.1/",
    "http://127.0.0.1\\good.example/",
    "http:\\\\127.0.0.1/",
    "http:/127.0.0.1/",
    "http:127.0.0.1/",
    "http:///etc/passwd",
    "http://good.example:0/",
    "http://good.example:99999/",
    "http://good.example:80a/",
    "http://good.example/a\r\nHost: 127.0.0.1",
    "http://good.example\t.evil.example/",
    "http://good.example\x00.evil.example/",
    "http://good.example\u2028/",
    "http://exa mple.com/",
    "http://-/",
    "http://a..b/",
    "http://" + "a" * 64 + ".example/",
    "http://good.example/" + "a" * 9000,
    "//127.0.0.1/x.jpg",
    "127.0.0.1/x.jpg",
    "file:///etc/passwd",
    "file://127.0.0.1/etc/passwd",
    "ftp://127.0.0.1/x.jpg",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "dict://127.0.0.1:11211/stat",
    "ldap://127.0.0.1/",
    "jar:http://127.0.0.1!/",
    "data:image/png;base64,iVBORw0KGgo=",
    "javascript:alert(1)",
    "unix:///var/run/docker.sock",
    "s3://bucket/key.jpg",
    "gs://bucket/key.jpg",
    "memory://bucket/key.jpg",
    "http://inside.example/",
    "http://metadata.example/",
    "http://loop.example/",
    "http://six.example/",
    "http://unique.example/",
    "http://mapped.example/",
    "http://nat.example/",
    "http://both.example/",
    "http://last.example/",
]


def test_no_forbidden_address_is_connected_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door(monkeypatch, 1, NAMES)
    assert len(set(HOSTILE)) >= 60
    # A list keeps control characters and separators inside an address.
    table = {"id": [f"{k:03d}" for k in range(len(HOSTILE))], "image": [json.dumps([url]) for url in HOSTILE]}
    found = download(pl.DataFrame(table), tmp_path, photos=("image",), options=DownloadOptions(attempts=1))
    assert door.tried == []
    rows = found.frame.sort("id").rows(named=True)
    assert [row["status"] for row in rows] == ["refused"] * len(HOSTILE)
    assert all(row["reason"] and row["detail"] for row in rows)


def test_even_with_private_addresses_allowed_some_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = Door(monkeypatch, 1, NAMES)
    urls = [
        "http://169.254.169.254/",
        "http://metadata.example/",
        "http://mapped.example/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://0.0.0.0/",
        "http://224.0.0.1/",
        "http://[fe80::1]/",
        "http://user@127.0.0.1/",
        "http://2130706433/",
    ]
    assert {status for status, _ in outcome(fetch(urls, tmp_path)).values()} == {"refused"}
    assert door.tried == []


def test_each_redirect_is_checked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door(monkeypatch, server.port, NAMES)
    targets = [
        url
        for url in HOSTILE
        if url.isascii() and url.isprintable() and len(url) < 99 and url.startswith(("http", "ftp:", "file:"))
    ]
    assert len(targets) > 60
    urls = [f"http://good.example/to?{target}" for target in targets]
    found = download(
        pl.DataFrame({"id": list(range(len(urls))), "image": urls}),
        tmp_path,
        options=DownloadOptions(attempts=1),
    )
    assert {status for status, _ in outcome(found).values()} == {"refused"}
    assert set(door.tried) == {PUBLIC}, "the redirect itself came from the server"


def test_a_host_is_resolved_once_and_connected_to_there(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = Door(monkeypatch, server.port, NAMES)
    found = download(
        pl.DataFrame({"id": [1, 2], "image": [f"http://rebind.example/redirect/3/{k}" for k in (1, 2)]}),
        tmp_path,
        options=DownloadOptions(attempts=1),
    )
    assert found.counts() == {"ok": 2}
    assert door.asked["rebind.example"] == 1
    assert set(door.tried) == {PUBLIC}


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
@settings(max_examples=500, deadline=None)
def test_what_is_not_global_is_forbidden(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if not ip.is_global or ip.is_multicast:
        assert forbidden(ip) is not None
    if forbidden(ip) is None:
        assert forbidden(ip, allow_private=True) is None


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_an_address_or_refused(text: str) -> None:
    statuses = {"refused"}
    for url in (text, f"http://{text}", f"http://shop.example/{text}"):
        try:
            address = read_address(url)
        except NotFetched as error:
            statuses.add(error.status)
            continue
        whole = f"{address.netloc}{address.target}"
        assert whole.isascii()
        assert not any(c.isspace() or not c.isprintable() for c in whole)
        assert read_address(address.url) == address, "the one spelling reads as itself"
    assert statuses == {"refused"}


def test_one_spelling_for_what_is_the_same() -> None:
    same = [
        "HTTP://Shop.Example:80/a b.jpg#top",
        "http://shop.example./a%20b.jpg",
        "http://shop.example/a b.jpg",
    ]
    assert {read_address(url).url for url in same} == {"http://shop.example/a%20b.jpg"}
    assert read_address("https://bücher.example/ü?q=ß&x=[1]").url == (
        "https://xn--bcher-kva.example/%C3%BC?q=%C3%9F&x=[1]"
    )
    assert read_address("http://[2606:4700::0:1]:8080").url == "http://[2606:4700::1]:8080/"


FAULTS = {
    "ok/1.jpg": ("ok", None),
    "form/PNG/2": ("ok", None),
    "form/WEBP/3": ("ok", None),
    "reset/2/4": ("ok", None),
    f"reset/{FOREVER}/5": ("failed", "reset"),
    "half_reset/6": ("failed", "reset"),
    "hang/1/7": ("ok", None),
    "stall/8": ("failed", "timeout"),
    "slow/100/9": ("ok", None),
    "drip/10": ("failed", "too_slow"),
    "redirect/3/11": ("ok", None),
    "redirect/9/12": ("failed", "redirects"),
    "loop/13": ("failed", "redirects"),
    "short/14": ("failed", "cut_off"),
    "long/15": ("not_an_image", "truncated"),
    "extra/16": ("ok", None),
    "status/403/17": ("failed", "http_403"),
    "status/500/18": ("failed", "http_500"),
    "flaky/503/2/19": ("ok", None),
    "flaky/408/1/20": ("ok", None),
    "flaky/425/1/21": ("ok", None),
    "html/22.jpg": ("not_an_image", "not_an_image"),
    "empty/23": ("not_an_image", "empty"),
    "cut/24": ("not_an_image", "truncated"),
    "type/25": ("ok", None),
    "chunked/26": ("ok", None),
    "chunk/negative/27": ("failed", "protocol"),
    "chunk/word/28": ("failed", "protocol"),
    "chunk/last/29": ("failed", "cut_off"),
    "gzip/30": ("ok", None),
    "bomb/31": ("failed", "too_large"),
    "brotli/32": ("failed", "encoding"),
    "endless/33": ("failed", "too_large"),
    "huge/34": ("failed", "too_large"),
    "both/35": ("failed", "protocol"),
    "two/36": ("failed", "protocol"),
    "close/37": ("ok", None),
    "close_cut/1/38": ("ok", None),
    f"close_cut/{FOREVER}/39": ("not_an_image", "truncated"),
    "garbage/40": ("failed", "protocol"),
    "headers/41": ("failed", "protocol"),
    "continue/42": ("ok", None),
    "nothing/43": ("failed", "http_404"),
}


def test_every_fault_has_its_outcome(server: Server, tmp_path: Path) -> None:
    found = fetch([server.url(path) for path in FAULTS], tmp_path)
    assert outcome(found) == {str(k): said for k, said in enumerate(FAULTS.values())}
    for row, path in zip(found.frame.sort(pl.col("id").cast(pl.Int64)).rows(named=True), FAULTS, strict=True):
        if row["status"] != "ok":
            assert row["image"] is row["width"] is None
            assert row["detail"]
            continue
        data = (tmp_path / row["image"]).read_bytes()
        form = path.split("/")[1] if path.startswith("form") else "JPEG"
        assert data == photo(path.rsplit("/", 1)[1], form), "the whole photo and nothing else"
        assert (row["bytes"], row["width"], row["height"]) == (len(data), 160, 120)
        assert row["digest"] == content_digest(data).hex()
    there = {path.name for path in tmp_path.iterdir()} - {"downloads.sqlite", "manifest.csv"}
    assert there == {row["image"] for row in found.frame.rows(named=True) if row["image"]}
    asked = server.log()["asked"]
    assert asked["/status/500/18"] == 3
    assert asked["/status/403/17"] == asked["/huge/34"] == 1, "what cannot get better is asked for once"


def test_what_is_smuggled_after_a_photo_is_nobodys_answer(server: Server, tmp_path: Path) -> None:
    urls = [server.url(f"{'extra' if k % 2 else 'ok'}/smuggle{k}.jpg") for k in range(20)]
    fetch(urls, tmp_path, workers=1)
    for k in range(20):
        assert (tmp_path / f"{k}.jpg").read_bytes() == photo(f"smuggle{k}.jpg")


@pytest.mark.parametrize("path", ["later/1/1/a.jpg", "until/1/2/b.jpg"])
def test_retry_after_is_honoured_for_the_whole_host(server: Server, tmp_path: Path, path: str) -> None:
    begun = time.monotonic()
    found = fetch([server.url(path)], tmp_path)
    took = time.monotonic() - begun
    assert found.counts() == {"ok": 1}
    assert took >= 0.9, "one second was asked for, in seconds or as a date"
    assert took < 8, "never longer than longest_wait, here one second"


def test_a_long_retry_after_is_cut_to_the_longest_wait(server: Server, tmp_path: Path) -> None:
    begun = time.monotonic()
    assert fetch([server.url("later/1/86400/c.jpg")], tmp_path, longest_wait=0.2).counts() == {"ok": 1}
    assert time.monotonic() - begun < 5


def test_connections_are_few_and_used_again(server: Server, tmp_path: Path) -> None:
    server.forget()
    fetch([server.url(f"slow/5/kept{k}.jpg") for k in range(80)], tmp_path, per_host=4, workers=16)
    log = server.log()
    assert log["connections"] <= 4 + 2, "each connection served many photos; the log's own come on top"
    assert log["most_open"] <= 4 + 1


def test_a_kept_connection_that_is_cut_costs_no_attempt(server: Server, tmp_path: Path) -> None:
    found = fetch([server.url(f"once/{k}.jpg") for k in range(20)], tmp_path, attempts=1, workers=2)
    assert found.counts() == {"ok": 20}


def test_turns_keep_the_limit_and_let_other_hosts_pass() -> None:
    turns = Turns([("slow", f"s{k}") for k in range(9)] + [("fast", f"f{k}") for k in range(9)], per_host=2)
    taken = [turns.take() for _ in range(4)]
    assert sorted(str(job)[0] for job in taken) == ["f", "f", "s", "s"]
    turns.again("slow", "s0", 5.0, home="slow", pause=True)
    turns.done("fast")
    turns.done("fast")
    rest = []
    for _ in range(7):
        rest.append(turns.take())
        turns.done("fast")
    assert sorted(map(str, rest)) == [f"f{k}" for k in range(2, 9)], "the paused host gives nothing"
    assert turns.left == 9
    turns.stop()
    assert turns.take() is None


def test_a_url_is_fetched_once_for_all_its_products(server: Server, tmp_path: Path) -> None:
    server.forget()
    urls = [server.url("ok/shared.jpg"), server.url("ok/shared.jpg#again"), server.url("ok/other.jpg")]
    found = fetch({"sku": ["a", "b", "c"], "image_link": urls}, tmp_path)
    assert server.log()["asked"] == {"/ok/shared.jpg": 1, "/ok/other.jpg": 1}
    assert found.frame["status"].to_list() == ["ok"] * 3
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes() == photo("shared.jpg")


def test_several_photos_and_the_catalogue_finds_the_first(server: Server, tmp_path: Path) -> None:
    one, two, three = (server.url(f"ok/{name}.jpg") for name in ("one", "two", "three"))
    table = pl.DataFrame(
        {
            "id": ["x/1", "..", "007", "Ünïcode", "a" * 300, "none", "a%2Fb", "a/b"],
            "image_url": [f"{one}, {two}", f'["{two}", "{one}"]', one, one, one, None, two, three],
            "photo_2": [three, None, None, None, None, None, None, None],
            "product_url": ["https://shop.example/page"] * 8,
        }
    )
    found = download(table, tmp_path, options=QUICK)
    assert found.counts() == {"no_url": 1, "ok": 10}
    rows = {(row["id"], row["photo"]): row["image"] for row in found.frame.rows(named=True)}
    assert rows["x/1", 1] == "x%2F1.jpg"
    assert rows["x/1", 2] == "2/x%2F1.jpg"
    assert rows["x/1", 3] == "3/x%2F1.jpg"
    assert (tmp_path / rows["x/1", 3]).read_bytes() == photo("three.jpg")
    catalog = sw.Catalog.read(table, images=tmp_path)
    pictures = [None if path is None else path.read_bytes() for path in catalog.images]
    wanted = ["one", "two", "one", "one", "one", None, "two", "three"]
    assert pictures == [None if name is None else photo(f"{name}.jpg") for name in wanted]
    assert list(catalog.image_errors) == [5]
    manifest = sw.Catalog.read(tmp_path / "manifest.csv", images=tmp_path)
    there = dict(zip(zip(manifest.ids, found.frame["photo"], strict=True), manifest.images, strict=True))
    assert there["x/1", 2] == (tmp_path / "2" / "x%2F1.jpg").resolve()


def test_the_order_of_rows_changes_nothing(server: Server, tmp_path: Path) -> None:
    quick = [
        path for path in FAULTS if path.split("/")[0] not in ("hang", "stall", "drip", "endless", "bomb")
    ]
    rows = [(f"p{k}", server.url(path)) for k, path in enumerate(quick)]
    rows += [(f"p{k}", server.url(f"ok/more{k}.jpg")) for k in range(5)]
    rows += [(f"d{k}", server.url("ok/1.jpg")) for k in range(4)] + [("p7", ""), ("p8", "http://10.0.0.1/")]
    manifests = set()
    for seed in range(3):
        server.forget()
        random.Random(seed).shuffle(rows)
        out = tmp_path / str(seed)
        fetch({"id": [id_ for id_, _ in rows], "image": [url for _, url in rows]}, out, workers=1 + 7 * seed)
        manifests.add((out / "manifest.csv").read_bytes())
    assert len(manifests) == 1


def test_a_finished_download_asks_again_for_what_failed_only(server: Server, tmp_path: Path) -> None:
    urls = [server.url("ok/fine.jpg"), server.url("flaky/503/4/late.jpg"), server.url("ok/also.jpg")]
    assert fetch(urls, tmp_path).counts() == {"failed": 1, "ok": 2}
    server.forget()
    (tmp_path / "2.jpg").write_bytes(b"\xff\xd8cut")
    again = fetch(urls, tmp_path)
    assert again.counts() == {"failed": 1, "ok": 2}
    assert set(server.log()["asked"]) == {"/flaky/503/4/late.jpg", "/ok/also.jpg"}
    assert (again.known, again.asked) == (1, 2)
    assert (tmp_path / "2.jpg").read_bytes() == photo("also.jpg")


def test_a_photo_put_there_by_hand_stays(server: Server, tmp_path: Path) -> None:
    fetch([server.url("nothing/1.jpg")], tmp_path)
    (tmp_path / "0.jpg").write_bytes(photo("by hand"))
    (tmp_path / ".0.jpg.tmp-aa-1-bb").write_bytes(b"half")
    fetch([server.url("nothing/1.jpg")], tmp_path)
    assert (tmp_path / "0.jpg").read_bytes() == photo("by hand")
    assert not strays(tmp_path)


def test_a_changed_address_replaces_the_photo(server: Server, tmp_path: Path) -> None:
    assert fetch([server.url("ok/old.jpg")], tmp_path).counts() == {"ok": 1}
    assert fetch([server.url("form/PNG/new")], tmp_path).counts() == {"ok": 1}
    assert sorted(path.name for path in tmp_path.glob("0.*")) == ["0.png"]
    assert fetch([server.url("nothing/here")], tmp_path).counts() == {"failed": 1}
    assert list(tmp_path.glob("0.*")) == [], "the photo of an older address is not the product's any more"
    assert fetch([server.url("form/PNG/new")] * 2, tmp_path).counts() == {"ok": 2}


def command(table: Path, out: Path, *more: str) -> list[str]:
    words = ["download", str(table), "-o", str(out), "--allow-private", "--idle", "0.5", *more]
    return [sys.executable, "-m", "shelfwise.cli", *words]


def ledger_of(folder: Path) -> set[str]:
    """The addresses that are recorded as fetched, as the next run will see them."""
    copy = folder.with_name("copy")
    copy.mkdir(exist_ok=True)
    for name in ("downloads.sqlite", "downloads.sqlite-wal"):
        if (folder / name).exists():
            (copy / name).write_bytes((folder / name).read_bytes())
    with sqlite3.connect(copy / "downloads.sqlite") as connection:
        found = {url for (url,) in connection.execute("SELECT url FROM urls WHERE status = 'ok'")}
    connection.close()
    return found


def wait_for(holds: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    give_up = time.monotonic() + 60
    while not holds():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.01)


def path_of(url: str) -> str:
    return "/" + url.split("/", 3)[3]


def mixed(server: Server, count: int) -> list[str]:
    """Addresses of which a fifth is reset at first, some are slow, redirected, of the wrong type, or repeated."""
    kinds = ["reset/1", "redirect/2", "slow/30", "slow/30", "html", "ok", "ok", "slow/20", "reset/2", "same"]
    urls = []
    for k in range(count):
        kind = kinds[k % len(kinds)]
        urls.append(server.url("slow/10/same.jpg" if kind == "same" and k % 3 else f"{kind}/{k}.jpg"))
    return [url.replace("/same/", "/ok/") for url in urls]


def test_killed_three_times_it_goes_on(server: Server, tmp_path: Path) -> None:
    count, out, table = 600, tmp_path / "photos", tmp_path / "table.csv"
    server.forget()
    urls = mixed(server, count)
    pl.DataFrame({"id": [f"{k:04d}" for k in range(count)], "image": urls}).write_csv(table)
    known: dict[str, int] = {}
    for enough in (60, 200, 350):
        process = subprocess.Popen(
            command(table, out, "--per-host", "6"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_for(lambda enough=enough: len(list(out.glob("*.jpg"))) >= enough, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for path in out.glob("*.jpg"):
            open_image(path)
        asked = server.log()["asked"]
        known |= {url: asked[path_of(url)] for url in ledger_of(out) - set(known)}
    assert 100 < len(known) < count
    done = subprocess.run(command(table, out), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    asked = server.log()["asked"]
    assert all(asked["/" + url.split("/", 3)[3]] == times for url, times in known.items()), (
        "fetched once more"
    )
    manifest = pl.read_csv(out / "manifest.csv", infer_schema=False)
    assert manifest["id"].to_list() == [f"{k:04d}" for k in range(count)]
    html = sum("/html/" in url for url in urls)
    assert manifest["status"].value_counts(sort=True).rows() == [("ok", count - html), ("not_an_image", html)]
    assert not strays(out)
    for row in manifest.filter(pl.col("status") == "ok").rows(named=True):
        name = row["url"].rsplit("/", 1)[1]
        assert (out / row["image"]).read_bytes() == photo(name)


def test_ctrl_c_leaves_nothing_half_written(server: Server, tmp_path: Path) -> None:
    out, table = tmp_path / "photos", tmp_path / "table.csv"
    pl.DataFrame({"id": range(300), "image": [server.url(f"slow/50/{k}.jpg") for k in range(300)]}).write_csv(
        table
    )
    process = subprocess.Popen(command(table, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(list(out.glob("*.jpg"))) >= 20, process)
    # Another download into the same folder is told so, at once.
    with pytest.raises(UsageError, match="another download writes to"):
        fetch([server.url("ok/1.jpg")], out)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 130
    assert "nothing is left half-written" in said
    assert not strays(out)
    there = list(out.glob("*.jpg"))
    assert len(ledger_of(out)) == len(there) < 300, "all that was done is recorded"
    assert not (out / "manifest.csv").exists()


def test_a_folder_of_others_is_left_alone(tmp_path: Path, server: Server) -> None:
    (tmp_path / "mine.jpg").write_bytes(photo("mine"))
    with pytest.raises(UsageError, match="holds pictures that were not downloaded"):
        fetch([server.url("ok/1.jpg")], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.jpg"]


def test_a_ledger_that_is_none_says_what_to_do(tmp_path: Path, server: Server) -> None:
    (tmp_path / "downloads.sqlite").write_bytes(b"not a database at all, " * 99)
    with pytest.raises(ShelfwiseError, match=r"cannot be used.*delete the ledger"):
        fetch([server.url("ok/1.jpg")], tmp_path)


def test_a_folder_that_cannot_be_written_ends_the_run(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def full(source: Any, target: Any) -> None:
        if str(target).endswith(".jpg"):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ShelfwiseError, match="cannot be written: No space left"):
        fetch([server.url(f"ok/{k}.jpg") for k in range(50)], tmp_path)
    assert not strays(tmp_path)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 and for no name, with its key."""
    folder = tmp_path_factory.mktemp("tls")
    key, out = folder / "key.pem", folder / "cert.pem"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=photos", "-addext"]
    words += ["subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(out)]
    try:
        subprocess.run(["openssl", *words], capture_output=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("openssl is not there to make a certificate")
    (folder / "both.pem").write_bytes(out.read_bytes() + key.read_bytes())
    return folder / "both.pem"


def test_tls_is_checked_against_the_host_of_the_address(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(str(certificate)) as server:
        https = [
            f"https://{host}:{server.port}/ok/{k}.jpg"
            for k in range(6)
            for host in ("127.0.0.1", "localhost")
        ]
        untrusted = fetch(https[:1], tmp_path / "a")
        assert outcome(untrusted) == {"0": ("failed", "certificate")}
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        found = fetch(https, tmp_path / "b")
        wanted = [("ok", None), ("failed", "certificate")] * 6
        assert outcome(found) == {str(k): said for k, said in enumerate(wanted)}
        down = f"https://127.0.0.1:{server.port}/to?http://127.0.0.1:{server.port}/ok/1.jpg"
        assert outcome(fetch([down], tmp_path / "c")) == {"0": ("refused", "downgrade")}


def test_plain_http_on_a_tls_port_is_a_failure_and_proxies_are_not_used(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    urls = [server.url("ok/1.jpg"), server.url("ok/1.jpg").replace("http:", "https:")]
    status = outcome(fetch(urls, tmp_path, attempts=1, connect=0.3))
    assert status["0"] == ("ok", None)
    assert status["1"][0] == "failed"


def test_local_files_only_inside_the_folder_that_is_open(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "secret.jpg"
    root.mkdir()
    (root / "a b.jpg").write_bytes(photo("local"))
    outside.write_bytes(photo("secret"))
    (root / "link.jpg").symlink_to(outside)
    os.mkfifo(root / "pipe.jpg")
    names = ["root/a%20b.jpg", "secret.jpg", "root/link.jpg", "root/../secret.jpg", "root/%2e%2e/secret.jpg"]
    urls = [f"file://{tmp_path}/{name}" for name in [*names, "root/pipe.jpg", "root/none.jpg"]]
    closed = fetch(urls, tmp_path / "closed")
    assert closed.counts() == {"refused": 7}
    found = fetch([*urls, "file://elsewhere/etc/passwd"], tmp_path / "open", allow_local=root)
    assert [status for status, _ in outcome(found).values()] == [
        "ok",
        *["refused"] * 4,
        *["failed"] * 2,
        "refused",
    ]
    assert outcome(found)["6"] == ("failed", "missing")


def test_objects_in_stores_that_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    class Fake(MemoryFileSystem):  # type: ignore[misc]
        protocol = "s3"
        store: dict[str, Any] = {}  # noqa: RUF012
        pseudo_dirs = [""]  # noqa: RUF012

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return super()._strip_protocol(path.replace("s3://", "memory://"))

        def cat_file(self, path: str, **words: Any) -> bytes:
            if path.endswith("forbidden.jpg"):
                raise PermissionError(path)
            if path.endswith("broken.jpg"):
                raise LookupError("the package of the store has errors of its own")
            data: bytes = super().cat_file(path, **words)
            return data

    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "s3", Fake)
    for name, data in (("a", photo("object")), ("big", bytes(2_000_000))):
        with fsspec.open(f"s3://photos/shop/{name}.jpg", "wb") as file:
            file.write(data)
    urls = [f"s3://photos/shop/{name}.jpg" for name in ("a", "none", "forbidden", "broken", "big")]
    urls += ["s3://photos/other/a.jpg", "s3://photos/shop/../other/a.jpg", "s3://photos/shop/a.jpg::file://x"]
    assert fetch(urls, tmp_path / "closed").counts() == {"refused": 8}
    found = fetch(urls, tmp_path / "open", allow_stores=("s3://photos/shop/",))
    reasons = ["missing", "denied", "store", "too_large", "store", "bad_url", "bad_url"]
    assert [reason for _, reason in outcome(found).values()] == [None, *reasons]
    assert (tmp_path / "open" / "0.jpg").read_bytes() == photo("object")


@pytest.mark.parametrize("prefix", ["s3:", "s3://photos", "http://shop.example/", "file:///tmp/", ""])
def test_a_prefix_of_a_store_is_exact(prefix: str) -> None:
    with pytest.raises(UsageError, match="is not the beginning of a store"):
        DownloadOptions(allow_stores=(prefix,))


@pytest.mark.parametrize(
    ("cell", "urls"),
    [
        (None, []),
        ("  ", []),
        ("NaN", []),
        ("https://a/1.jpg", ["https://a/1.jpg"]),
        (" https://a/x,y;z.jpg ", ["https://a/x,y;z.jpg"]),
        ("https://a/1.jpg|https://a/2.jpg", ["https://a/1.jpg", "https://a/2.jpg"]),
        ("https://a/1.jpg, s3://b/2.jpg\nhttp://c", ["https://a/1.jpg", "s3://b/2.jpg", "http://c"]),
        ('["https://a/1.jpg", "https://a/2.jpg"]', ["https://a/1.jpg", "https://a/2.jpg"]),
        ("['https://a/1.jpg', 'https://a/2.jpg']", ["https://a/1.jpg", "https://a/2.jpg"]),
        ("[]", []),
        ("not an address", ["not an address"]),
    ],
)
def test_cells_are_split_where_an_address_begins(cell: str | None, urls: list[str]) -> None:
    assert split_cell(cell) == urls


@given(st.lists(st.text(min_size=1, max_size=300), unique=True, max_size=6))
@settings(max_examples=200, deadline=None)
def test_file_names_are_safe_and_different(ids: list[str]) -> None:
    ids = [id_.encode("utf-8", "replace").decode() for id_ in dict.fromkeys(ids)]
    stems = {file_stem(id_) for id_ in set(ids)}
    assert len(stems) == len(set(ids))
    for stem in stems:
        assert stem not in ("", ".", "..")
        assert not set(stem) & set('/\\\0\n:*?"<>|')
        assert len(stem.encode()) <= 160


def test_columns_are_inferred_or_asked_for(tmp_path: Path) -> None:
    page = "https://shop.example/page"
    with pytest.raises(CatalogError, match=r"no column holds addresses.*--image"):
        download(pl.DataFrame({"id": [1], "image": ["a.jpg"]}), tmp_path)
    with pytest.raises(CatalogError, match=r"which of the columns 'link', 'page' holds the photos\?"):
        download(pl.DataFrame({"id": [1], "link": [page], "page": [page]}), tmp_path)
    with pytest.raises(CatalogError, match=r"no column 'imag'\. Did you mean 'image'"):
        download(pl.DataFrame({"id": [1], "image": [page]}), tmp_path, photos=("imag",))
    assert not list(tmp_path.iterdir()), "nothing is begun"


def test_empty_and_repeated_ids(server: Server, tmp_path: Path) -> None:
    urls = [server.url(f"ok/{name}.jpg") for name in ("one", "two", "one", "one")]
    found = fetch({"id": ["a", "a", "", "a"], "image": urls}, tmp_path)
    rows = [(row["id"], row["photo"], row["status"], row["reason"]) for row in found.frame.rows(named=True)]
    assert rows == [("", 1, "failed", "no_id"), ("a", 1, "ok", None), ("a", 2, "ok", None)]
    assert [(note.kind, note.row) for note in found.notes] == [("duplicate_id", 2)]


def test_the_verb(server: Server, tmp_path: Path, shell: Shell) -> None:
    table = tmp_path / "table.csv"
    urls = [server.url("ok/1.jpg"), server.url("html/2.jpg"), "http://169.254.169.254/", ""]
    pl.DataFrame({"sample_id": ["1", "2", "3", "4"], "image_link": urls, "price": ["9"] * 4}).write_csv(table)
    out = tmp_path / "out"
    closed = shell("download", table, "-o", tmp_path / "closed")
    assert closed.code == 0
    assert "1 no_url, 3 refused" in closed.out
    ran = shell("download", table, "-o", out, "--allow-private", "--manifest", tmp_path / "m.parquet")
    assert ran.code == 0
    assert "4 photos: 1 no_url, 1 not_an_image, 1 ok, 1 refused" in ran.out
    assert "1 not_an_image, not_an_image; the first is id 2: the file is an HTML page" in ran.out
    assert pl.read_parquet(tmp_path / "m.parquet")["status"].to_list() == [
        "ok",
        "not_an_image",
        "refused",
        "no_url",
    ]
    assert (out / "1.jpg").read_bytes() == photo("1.jpg")
    wrong = shell("download", table, "-o", out, "--manifest", tmp_path / "m.txt")
    assert (wrong.code, "is written to .csv or .parquet" in wrong.message) == (2, True)
    wrong = shell("download", table, "-o", out, "--allow-store", "bucket")
    assert (wrong.code, "is not the beginning of a store" in wrong.message) == (2, True)


def test_findings_name_id_and_reason(server: Server, tmp_path: Path) -> None:
    found = fetch([server.url("ok/1.jpg"), server.url("status/410/x")], tmp_path)
    (lost,) = found.findings()
    assert (lost.kind, lost.id, lost.evidence["reason"]) == ("download_failed", "1", "http_410")
    assert answer(b"", "410 Gone").startswith(b"HTTP/1.1 410")
