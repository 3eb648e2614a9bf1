"""A web server that keeps and breaks every rule, in a process of its own: what it does stands in the path.

``/ok/7.jpg`` is a photo; ``/reset/2/7.jpg`` cuts the connection twice before it gives the photo; and so on, see
``Faulty``. ``/log`` says what was asked for. Run as a program it prints its port and serves until it is killed.
"""

import asyncio
import collections
import contextlib
import datetime
import email.utils
import functools
import gzip
import io
import json
import re
import socket
import ssl
import struct
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

HTML = b"<!DOCTYPE html><html><body>Please log in to see this picture</body></html>"
FOREVER = 99


@functools.cache
def drawn(number: int, form: str = "JPEG") -> bytes:
    """One of 16 pictures of 160 x 120."""
    coarse = Image.fromarray(np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8))
    file = io.BytesIO()
    coarse.resize((160, 120), Image.Resampling.BICUBIC).save(file, form, quality=88)
    return file.getvalue()


def photo(name: str, form: str = "JPEG") -> bytes:
    """The picture of a name: JPEGs carry the name as a comment, so that each has content of its own."""
    data = drawn(sum(name.encode()) % 16, form)
    if form != "JPEG":
        return data
    text = name.encode()
    return data[:2] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text + data[2:]


def answer(
    body: bytes,
    status: str = "200 OK",
    *,
    kind: str = "image/jpeg",
    length: int | None = None,
    more: str = "",
) -> bytes:
    stated = len(body) if length is None else length
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {stated}\r\n{more}\r\n".encode() + body
    )


class Faulty(asyncio.Protocol):
    """One connection."""

    asked: ClassVar[collections.Counter[str]] = collections.Counter()
    open = most_open = connections = 0

    def connection_made(self, transport: Any) -> None:
        self.transport, self.buffer, self.served = transport, b"", 0
        self.tasks: set[asyncio.Task[None]] = set()
        kind = type(self)
        kind.connections += 1
        kind.open += 1
        kind.most_open = max(kind.most_open, kind.open)

    def connection_lost(self, error: Exception | None) -> None:
        type(self).open -= 1
        for task in self.tasks:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode()
            if not path.startswith(("/log", "/forget")):
                self.asked[path] += 1
            self.act(path)

    def act(self, path: str) -> None:
        _, what, *rest = urllib.parse.urlsplit(path).path.split("/")
        name = rest[-1] if rest else ""
        count = self.asked[path]
        method: Callable[..., None] = getattr(self, f"do_{what}", self.do_nothing_there)
        method(path=path, name=name, rest=rest, count=count)

    def say(self, data: bytes, close: bool = False) -> None:
        self.transport.write(data)
        if close:
            self.transport.close()

    def later(self, seconds: float, data: bytes) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            self.say(data)

        task = asyncio.ensure_future(wait())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def cut(self) -> None:
        if self.transport.is_closing():
            return
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def repeat(self, piece: bytes, seconds: float) -> None:
        async def go() -> None:
            while not self.transport.is_closing():
                self.transport.write(piece)
                await asyncio.sleep(seconds)

        task = asyncio.ensure_future(go())
        self.tasks.add(task)

    def do_nothing_there(self, **_: Any) -> None:
        self.say(answer(HTML, "404 Not Found", kind="text/html"))

    def do_ok(self, name: str, **_: Any) -> None:
        self.say(answer(photo(name)))

    def do_form(self, rest: list[str], name: str, **_: Any) -> None:
        self.say(answer(photo(name, rest[0]), kind="application/octet-stream"))

    def do_reset(self, rest: list[str], name: str, count: int, **_: Any) -> None:
        self.cut() if count <= int(rest[0]) else self.do_ok(name)

    def do_once(self, name: str, **_: Any) -> None:
        """Answer the first request of a connection, and cut it at the second."""
        self.served += 1
        self.do_ok(name) if self.served == 1 else self.cut()

    def do_half_reset(self, name: str, **_: Any) -> None:
        data = answer(photo(name))
        self.say(data[: len(data) // 2])
        asyncio.get_running_loop().call_later(0.02, self.cut)

    def do_hang(self, rest: list[str], name: str, count: int, **_: Any) -> None:
        if count > int(rest[0]):
            self.do_ok(name)

    def do_stall(self, name: str, **_: Any) -> None:
        data = answer(photo(name))
        self.say(data[: len(data) // 2])

    def do_slow(self, rest: list[str], name: str, **_: Any) -> None:
        self.later(int(rest[0]) / 1000, answer(photo(name)))

    def do_drip(self, **_: Any) -> None:
        self.say(answer(b"\xff\xd8\xff", length=10**6))
        self.repeat(b"\0", 0.05)

    def do_redirect(self, rest: list[str], name: str, **_: Any) -> None:
        left = int(rest[0])
        target = f"/redirect/{left - 1}/{name}" if left > 1 else f"/ok/{name}"
        self.say(answer(b"moved", "302 Found", kind="text/plain", more=f"Location: {target}\r\n"))

    def do_loop(self, path: str, **_: Any) -> None:
        self.say(answer(b"", "301 Moved Permanently", more=f"Location: {path}\r\n"))

    def do_to(self, path: str, **_: Any) -> None:
        target = urllib.parse.unquote(urllib.parse.urlsplit(path).query)
        self.say(answer(b"", "307 Temporary Redirect", more=f"Location: {target}\r\n"))

    def do_short(self, name: str, **_: Any) -> None:
        data = photo(name)
        self.say(answer(data, length=len(data) + 1000), close=True)

    def do_long(self, name: str, **_: Any) -> None:
        data = photo(name)
        self.say(answer(data, length=len(data) - 500))

    def do_extra(self, name: str, **_: Any) -> None:
        self.say(answer(photo(name)) + answer(photo("smuggled")))

    def do_status(self, rest: list[str], **_: Any) -> None:
        self.say(answer(HTML, f"{rest[0]} Whatever", kind="text/html"))

    def do_flaky(self, rest: list[str], name: str, count: int, **_: Any) -> None:
        flaky = answer(HTML, f"{rest[0]} Whatever", kind="text/html")
        self.say(flaky) if count <= int(rest[1]) else self.do_ok(name)

    def do_later(self, rest: list[str], name: str, count: int, **_: Any) -> None:
        if count > int(rest[0]):
            self.do_ok(name)
        else:
            self.say(answer(b"", "429 Too Many Requests", more=f"Retry-After: {rest[1]}\r\n"))

    def do_until(self, rest: list[str], name: str, count: int, **_: Any) -> None:
        when = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=float(rest[1]))
        stamp = email.utils.format_datetime(when, usegmt=True)
        if count > int(rest[0]):
            self.do_ok(name)
        else:
            self.say(answer(b"", "503 Service Unavailable", more=f"Retry-After: {stamp}\r\n"))

    def do_html(self, **_: Any) -> None:
        self.say(answer(HTML))

    def do_empty(self, **_: Any) -> None:
        self.say(answer(b""))

    def do_cut(self, name: str, **_: Any) -> None:
        self.say(answer(photo(name)[:-600]))

    def do_type(self, name: str, **_: Any) -> None:
        self.say(answer(photo(name), kind="text/html"))

    def do_chunked(self, name: str, **_: Any) -> None:
        data = photo(name)
        parts = b"".join(b"%x;x=y\r\n%s\r\n" % (len(part), part) for part in (data[:100], data[100:]))
        self.say(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + parts + b"0\r\nTrailer: 1\r\n\r\n"
        )

    def do_chunk(self, rest: list[str], name: str, **_: Any) -> None:
        """Chunks whose sizes are wrong: negative, no number, or missing at the end."""
        data = photo(name)
        size = {"negative": b"-1", "word": b"size", "last": b"%x" % len(data)}[rest[0]]
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.say(head + size + b"\r\n" + data + b"\r\n", close=rest[0] == "last")

    def do_gzip(self, name: str, **_: Any) -> None:
        self.say(answer(gzip.compress(photo(name)), more="Content-Encoding: gzip\r\n"))

    def do_bomb(self, **_: Any) -> None:
        self.say(answer(bomb(), more="Content-Encoding: gzip\r\n"))

    def do_brotli(self, name: str, **_: Any) -> None:
        self.say(answer(photo(name), more="Content-Encoding: br\r\n"))

    def do_endless(self, **_: Any) -> None:
        self.say(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8\xff")
        self.repeat(b"\0" * 200_000, 0.001)

    def do_huge(self, **_: Any) -> None:
        self.say(answer(b"\xff\xd8\xff", length=10**12))

    def do_both(self, name: str, **_: Any) -> None:
        self.say(answer(photo(name), more="Transfer-Encoding: chunked\r\n"))

    def do_two(self, name: str, **_: Any) -> None:
        self.say(answer(photo(name), more="Content-Length: 7\r\n"))

    def do_close(self, name: str, **_: Any) -> None:
        self.say(b"HTTP/1.0 200 OK\r\n\r\n" + photo(name), close=True)

    def do_close_cut(self, rest: list[str], name: str, count: int, **_: Any) -> None:
        end = -600 if count <= int(rest[0]) else None
        self.say(b"HTTP/1.0 200 OK\r\n\r\n" + photo(name)[:end], close=True)

    def do_garbage(self, **_: Any) -> None:
        self.say(b"220 this is a mail server\r\n", close=True)

    def do_headers(self, **_: Any) -> None:
        self.say(b"HTTP/1.1 200 OK\r\n")
        self.repeat(b"X-More: " + b"y" * 1000 + b"\r\n", 0.001)

    def do_continue(self, name: str, **_: Any) -> None:
        self.say(b"HTTP/1.1 100 Continue\r\n\r\n" + answer(photo(name)))

    def do_log(self, **_: Any) -> None:
        kind = type(self)
        told = {"asked": self.asked, "connections": kind.connections, "most_open": kind.most_open}
        self.say(answer(json.dumps(told).encode(), kind="application/json"))

    def do_forget(self, **_: Any) -> None:
        kind = type(self)
        self.asked.clear()
        kind.connections, kind.most_open = 0, kind.open
        self.say(answer(b"{}", kind="application/json"))


@functools.cache
def bomb() -> bytes:
    """60 MB of zeros in 60 KB."""
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb") as packed:
        for _ in range(60):
            packed.write(bytes(10**6))
    return file.getvalue()


@dataclass(frozen=True)
class Server:
    """A running server."""

    port: int

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def log(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.url("log")) as response:
            found: dict[str, Any] = json.load(response)
        return found

    def forget(self) -> None:
        urllib.request.urlopen(self.url("forget")).close()


@contextlib.contextmanager
def running(certificate: str = "") -> Iterator[Server]:
    """Run the server in a process of its own; with a certificate (a file with its key) it speaks TLS."""
    command = [sys.executable, __file__, *([certificate] if certificate else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            found = re.match(r"port (\d+)", process.stdout.readline())
            assert found is not None
            yield Server(int(found.group(1)))
        finally:
            process.kill()


async def serve(certificate: str) -> None:
    loop = asyncio.get_running_loop()
    secure = None
    if certificate:
        secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        secure.load_cert_chain(certificate)
    server = await loop.create_server(Faulty, "127.0.0.1", 0, ssl=secure, backlog=512)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1] if len(sys.argv) > 1 else ""))
