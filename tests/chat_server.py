"""A server that speaks the chat-completions protocol, and answers from the picture it is sent."""

import base64
import contextlib
import io
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image


@dataclass
class Answer:
    """What goes over the wire.

    Attributes:
        body: bytes, whatever they are.
        status: of the response.
        headers: beside the content type, which they may replace.
        length: stated content length; that of the body if left out.
        reset: cut the connection instead.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    reset: bool = False


@dataclass
class Server:
    """A running server: what it is asked, and what decides what it answers."""

    url: str = ""
    answer: Callable[[dict[str, Any], int], Answer] | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    busy: int = 0
    most_busy: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def forget(self) -> None:
        self.asked, self.headers, self.most_busy = [], [], 0


def completion(text: Any, *, steps: list[tuple[str, dict[str, float]]] | None = None) -> Answer:
    """A well-formed chat completion around a text."""
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text},
    }
    if steps is not None:
        content = [
            {
                "token": token,
                "logprob": float(np.log(others[token])),
                "top_logprobs": [{"token": t, "logprob": float(np.log(p))} for t, p in others.items()],
            }
            for token, others in steps
        ]
        choice["logprobs"] = {"content": content}
    usage = {"prompt_tokens": 200, "completion_tokens": 20, "total_tokens": 220}
    body = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "eye",
        "choices": [choice],
        "usage": usage,
    }
    return Answer(json.dumps(body).encode())


def picture_of(request: dict[str, Any]) -> np.ndarray[Any, Any]:
    url = request["messages"][0]["content"][0]["image_url"]["url"]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


def eye(request: dict[str, Any], number: int = 0) -> Answer:
    """Name the colour by the strongest channel in the middle, and of every other attribute the first value."""
    return completion(json.dumps(seen(request)))


def seen(request: dict[str, Any]) -> dict[str, str]:
    pixels = picture_of(request)
    middle = pixels[pixels.shape[0] // 2 - 3 :, pixels.shape[1] // 2 - 3 :][:6, :6]
    colour = ("red", "green", "blue")[int(middle.reshape(-1, 3).mean(axis=0).argmax())]
    fields = request["response_format"]["json_schema"]["schema"]["properties"]
    said = {name: entry["enum"][0] for name, entry in fields.items()}
    if colour in fields.get("colour", {"enum": []})["enum"]:
        said["colour"] = colour
    return said


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Run a server on this machine while it is needed."""
    state = Server(answer=eye)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with state.lock:
                state.asked.append(request)
                state.headers.append({name.lower(): value for name, value in self.headers.items()})
                number = len(state.asked) - 1
                state.busy += 1
                state.most_busy = max(state.most_busy, state.busy)
            assert state.answer is not None
            try:
                answer = state.answer(request, number)
            finally:
                with state.lock:
                    state.busy -= 1
            self.close_connection = answer.reset or answer.length is not None
            if answer.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                return
            self.send_response(answer.status)
            length = len(answer.body) if answer.length is None else answer.length
            for name, value in {
                "content-type": "application/json",
                **answer.headers,
                "content-length": str(length),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)
            self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    server = Quiet(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def slowly(seconds: float) -> Callable[[dict[str, Any], int], Answer]:
    def answer(request: dict[str, Any], number: int) -> Answer:
        time.sleep(seconds)
        return eye(request, number)

    return answer
