"""Run: a process that listens, serves an application, and ends without losing what it took.

It does not know routes. On SIGTERM answers say that their connection ends, so that clients come back elsewhere; a
moment later nothing more is accepted, and what is under way is finished. On SIGHUP the bundle is loaded anew.
"""

import asyncio
import signal
import socket
import sys
import threading
from types import FrameType

import uvicorn
from fastapi import FastAPI

from shelfwise.errors import BundleError, UsageError
from shelfwise.service.logs import begin, say

#: Seconds between the signal to end and the end of listening.
MOMENT = 0.5
#: Seconds that the head of a request may take.
HEAD = 10.0
#: Seconds that a thread computes on while the one that receives waits; with Python's own 0.005 refusals were slow.
TURN = 0.001
#: Ticks of the server's clock in a second.
TICKS = 10


class Server(uvicorn.Server):
    """A server that ends in two steps, and hangs up on clients that do not get round to asking."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        """Serve ``app``."""
        super().__init__(config)
        self.application = app
        self._silent: dict[int, int] = {}
        self._swapping: asyncio.Future[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and to hear the signal to load the bundle anew."""
        await super().startup(sockets=sockets)
        if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._swap)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End: at the first signal in a moment, at the second at once."""
        if self.application.state.draining or not self.started:
            self.should_exit, self.force_exit = True, self.should_exit
            return
        self.application.state.draining = True
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(loop.call_later, MOMENT, self._stop)

    def _stop(self) -> None:
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Look after connections once a second."""
        if counter % TICKS == 0:
            self._hang_up()
        return await super().on_tick(counter)

    def _hang_up(self) -> None:
        """Close connections that have been open for too long without the head of a request."""
        seen: dict[int, int] = {}
        for connection in list(self.server_state.connections):
            cycle = getattr(connection, "cycle", None)
            kept = getattr(connection, "timeout_keep_alive_task", None)
            if (cycle is None or cycle.response_complete) and kept is None:
                seen[id(connection)] = self._silent.get(id(connection), 0) + 1
                if seen[id(connection)] > HEAD:
                    connection.transport.close()
        self._silent = seen

    def _swap(self) -> None:
        """Load the bundle anew, beside what goes on."""
        loop, serving = asyncio.get_running_loop(), self.application.state.serving

        def swap() -> None:
            try:
                say("bundle loaded", bundle=serving.swap().digest)
            except BundleError as error:
                say("bundle refused", reason=str(error))

        self._swapping = loop.run_in_executor(None, swap)


def run(app: FastAPI, *, page: str = "") -> None:
    """Serve an application until a signal ends it.

    Args:
        app: it.
        page: where a person begins, to be printed; nothing if empty.

    Raises:
        UsageError: the address cannot be listened on.
    """
    options = app.state.options
    begin()
    sys.setswitchinterval(TURN)
    _open_more()
    config = uvicorn.Config(
        app,
        options.host,
        options.port,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=15,
        timeout_graceful_shutdown=int(options.drain) or 1,
        backlog=512,
        lifespan="on",
    )
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((options.host, options.port))
    except OSError as error:
        listening.close()
        raise UsageError(
            f"cannot listen on {options.host}:{options.port}: {error.strerror or error}. Choose another --port"
        ) from error
    host, port = listening.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    print(f"serving on {address}; Ctrl-C ends it", file=sys.stderr, flush=True)
    if page:
        print(f"review pages: {address}{page}", file=sys.stderr, flush=True)
    Server(config, app).run(sockets=[listening])


def _open_more() -> None:
    """Let the process have as many connections as it is allowed."""
    if sys.platform != "win32":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
