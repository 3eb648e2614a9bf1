"""Wire: one HTTP request over a connection to a checked address, and connections kept for the next one.

It does not know pictures, tables or what is worth another attempt to whom. HTTP/1.1 as in RFC 9112, read by the
standard library; what two programs could read differently (two lengths, a length and chunks) ends the connection.
Proxies named in the environment are not used: whoever connects for us connects to addresses nobody checked.
"""

import contextlib
import http.client
import io
import socket
import ssl
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from shelfwise.data.addresses import Address, Endpoint, redirected, resolve
from shelfwise.data.messages import cut_off, drained, pieces, retry_after, stated_length, too_large, unpacker
from shelfwise.data.terms import DownloadOptions, NotFetched

#: Bytes of a photo that are held in memory; more go to a file without a name.
IN_MEMORY = 1 << 20
#: Seconds for which what a host resolved to is kept, and for which an idle connection is.
KEPT_ENDPOINTS = 300.0
KEPT_CONNECTION = 30.0
#: Seconds that the rest of an answer without a photo may take.
DRAINING = 1.0
REDIRECTS = (301, 302, 303, 307, 308)
#: Statuses after which another attempt may help, beside 500 and above.
AGAIN = (408, 425, 429)
NEVER = (501, 505)
_HEAD = "User-Agent: shelfwise\r\nAccept: image/jpeg,image/png,image/*;q=0.8,*/*;q=0.5\r\nAccept-Encoding: identity\r\n"


@dataclass(frozen=True)
class Body:
    """What came for an address.

    Attributes:
        file: the content, at its beginning; the caller closes it.
        whole: whether its length was stated, so that it is known not to be cut off.
    """

    file: IO[bytes]
    whole: bool


class _Inflow(io.RawIOBase):
    """What a socket receives, with a limit on silence and one on the whole."""

    def __init__(self, sock: socket.socket, idle: float) -> None:
        self.sock, self.idle, self.deadline, self.at_once = sock, idle, 0.0, False

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Receive once; ``None`` where nothing is there and ``at_once`` is set."""
        if self.at_once:
            self.sock.setblocking(False)
            try:
                return self.sock.recv_into(buffer)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return None
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.sock.settimeout(min(self.idle, left))
        return self.sock.recv_into(buffer)


class _Lasting(io.BufferedReader):
    """A reader that a response cannot close, so that it serves the next one."""

    def close(self) -> None:
        """Do nothing; the connection is closed by whoever keeps it."""


class Connection:
    """One connection to a checked address, with the reader that all its responses share."""

    def __init__(self, sock: socket.socket, idle: float) -> None:
        self.sock = sock
        self.inflow = _Inflow(sock, idle)
        self.reader = _Lasting(self.inflow)
        self.used = False
        self.since = 0.0

    def makefile(self, mode: str) -> _Lasting:
        """Give the reader, as ``http.client`` asks a socket for one."""
        return self.reader

    def quiet(self) -> bool:
        """Whether nothing has come that nobody asked for, and the other side has not hung up."""
        self.inflow.at_once = True
        try:
            if self.reader.peek(1):
                return False
            self.sock.setblocking(False)
            return self.sock.recv(1, 0) is None
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        except (OSError, ValueError):
            return False
        finally:
            self.inflow.at_once = False

    def shut(self) -> None:
        """Close for good; a thread that waits on it gets an error."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


class Wires:
    """Connections to many hosts, safe for many threads."""

    def __init__(self, options: DownloadOptions, folder: Path) -> None:
        """Keep to these terms; bodies that do not fit in memory go to nameless files in ``folder``."""
        self.options, self.folder = options, folder
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, str, int], list[Connection]] = {}
        self._busy: set[Connection] = set()
        self._endpoints: dict[tuple[str, int], tuple[float, tuple[Endpoint, ...]]] = {}
        self._resolving: dict[tuple[str, int], threading.Lock] = {}
        self._ended = False
        self._secure: ssl.SSLContext | None = None

    def get(self, address: Address) -> Body | Address:
        """Ask once for an address; return what came, or where it was redirected to.

        Raises:
            NotFetched: with the reason, and whether another attempt may help.
        """
        deadline = time.monotonic() + self.options.total
        with _told(self.options, deadline):
            kept = self._take(address)
            if kept is not None:
                try:
                    return self._ask(kept, address, deadline)
                except _HungUp:
                    pass
            return self._ask(self._connect(address, deadline), address, deadline)

    def close(self) -> None:
        """Close every connection, those in use included; nothing is opened any more."""
        with self._lock:
            self._ended = True
            connections = [*self._busy, *(kept for some in self._idle.values() for kept in some)]
            self._idle.clear()
        for connection in connections:
            connection.shut()

    def _ask(self, connection: Connection, address: Address, deadline: float) -> Body | Address:
        """Send the request and read the answer; keep the connection if it can serve again."""
        keep, reused, connection.used = False, connection.used, True
        connection.inflow.deadline = deadline
        try:
            response = http.client.HTTPResponse(connection, method="GET")  # type: ignore[arg-type]
            try:
                connection.sock.settimeout(min(self.options.idle, max(deadline - time.monotonic(), 0.001)))
                request = f"GET {address.target} HTTP/1.1\r\nHost: {address.netloc}\r\n{_HEAD}\r\n"
                connection.sock.sendall(request.encode("ascii"))
                response.begin()
            except (ConnectionError, ssl.SSLEOFError) as error:
                if reused:
                    raise _HungUp from error
                raise
            length = stated_length(response)
            content = pieces(connection.reader, length, response.chunked)
            if response.status == 200:
                body = self._body(response, content, length)
                keep = True
                return body
            try:
                return self._other(response, address)
            finally:
                connection.inflow.deadline = min(deadline, time.monotonic() + DRAINING)
                keep = drained(content, length, response.chunked)
        finally:
            self._give(address, connection, keep and not response.will_close)

    def _other(self, response: http.client.HTTPResponse, address: Address) -> Address:
        """Where an answer without a photo leads, or what it says."""
        status, location = response.status, response.getheader("Location")
        if status in REDIRECTS and location:
            # Headers are read as latin-1; what is not ASCII was most often meant as UTF-8.
            location = location.encode("latin-1").decode("utf-8", errors="replace")
            return redirected(
                address,
                location,
                allow_private=self.options.allow_private,
                allow_downgrade=self.options.allow_downgrade,
            )
        phrase = http.client.responses.get(status, "")
        again = status in AGAIN or (status >= 500 and status not in NEVER)
        wait = retry_after(response.getheader("Retry-After")) if again else None
        detail = f"the server said {status} {phrase}".rstrip()
        raise NotFetched("failed", f"http_{status}", detail, again=again, wait=wait)

    def _body(self, response: http.client.HTTPResponse, content: Iterator[bytes], length: int | None) -> Body:
        """Read a photo to its end, or to the limit."""
        most = self.options.max_bytes
        if length is not None and length > most:
            raise too_large(most, f"the server announces {length:,} bytes")
        unpack = unpacker(response.getheader("Content-Encoding"))
        file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY, dir=str(self.folder))  # noqa: SIM115
        try:
            read = written = 0
            for piece in content:
                read += len(piece)
                plain = piece if unpack is None else unpack.decompress(piece, most - written + 1)
                written += len(plain)
                if read > most or written > most:
                    raise too_large(most, "the content goes on")
                file.write(plain)
            if unpack is not None and not unpack.eof:
                raise cut_off(f"the packed content ended after {read:,} bytes")
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return Body(file, length is not None or bool(response.chunked))

    def _take(self, address: Address) -> Connection | None:
        """A kept connection that is still good."""
        origin = (address.scheme, address.host, address.port)
        while True:
            with self._lock:
                kept = self._idle.get(origin)
                if not kept:
                    return None
                connection = kept.pop()
                if not kept:
                    del self._idle[origin]
                self._busy.add(connection)
            if time.monotonic() - connection.since < KEPT_CONNECTION and connection.quiet():
                return connection
            self._give(address, connection, False)

    def _give(self, address: Address, connection: Connection, keep: bool) -> None:
        """Keep a connection for the next request, or close it; of too many, the first host's go."""
        closing = [] if keep else [connection]
        with self._lock:
            self._busy.discard(connection)
            if keep and not self._ended:
                if sum(map(len, self._idle.values())) >= self.options.workers:
                    closing += self._idle.pop(next(iter(self._idle)))
                connection.since = time.monotonic()
                self._idle.setdefault((address.scheme, address.host, address.port), []).append(connection)
            elif keep:
                closing.append(connection)
        for one in closing:
            one.shut()

    def _connect(self, address: Address, deadline: float) -> Connection:
        """Connect to one of the checked addresses of a host."""
        failure: OSError | None = None
        for family, place in self._resolved(address):
            sock = socket.socket(family, socket.SOCK_STREAM)
            connection = Connection(sock, self.options.idle)
            with self._lock:
                if self._ended:
                    sock.close()
                    raise ConnectionAbortedError
                self._busy.add(connection)
            try:
                sock.settimeout(max(min(self.options.connect, deadline - time.monotonic()), 0.001))
                sock.connect(place)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if address.scheme == "http":
                    return connection
                secure = self._context().wrap_socket(sock, server_hostname=address.host)
                connection.sock = connection.inflow.sock = secure
                return connection
            except ssl.SSLError:
                self._give(address, connection, False)
                raise
            except OSError as error:
                self._give(address, connection, False)
                failure = error
        raise failure or ConnectionRefusedError()

    def _resolved(self, address: Address) -> tuple[Endpoint, ...]:
        """The checked addresses of a host, asked for once in a while."""
        key = (address.host, address.port)
        with self._lock:
            turn = self._resolving.setdefault(key, threading.Lock())
        with turn:
            when, endpoints = self._endpoints.get(key, (float("-inf"), ()))
            if time.monotonic() - when > KEPT_ENDPOINTS:
                endpoints = resolve(address, allow_private=self.options.allow_private)
                self._endpoints[key] = (time.monotonic(), endpoints)
        return endpoints

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self._secure is None:
                self._secure = ssl.create_default_context()
            return self._secure


class _HungUp(Exception):
    """A kept connection that the other side had closed; not an attempt that counts."""


@contextlib.contextmanager
def _told(options: DownloadOptions, deadline: float) -> Iterator[None]:
    """Turn what the network raises into what is said of a photo."""
    try:
        yield
    except TimeoutError as error:
        if time.monotonic() >= deadline - 0.05:
            detail = f"not there after {options.total:g} s"
            raise NotFetched("failed", "too_slow", detail) from error
        raise NotFetched(
            "failed", "timeout", "the server fell silent, or did not answer", again=True
        ) from error
    except ssl.SSLCertVerificationError as error:
        raise NotFetched("failed", "certificate", f"the certificate: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise NotFetched(
            "failed", "tls", f"no secure connection: {error.reason or error}", again=True
        ) from error
    except ConnectionRefusedError as error:
        raise NotFetched("failed", "connection_refused", "the connection was refused", again=True) from error
    except ConnectionError as error:
        raise NotFetched("failed", "reset", "the connection was cut", again=True) from error
    except http.client.HTTPException as error:
        detail = f"the answer is not HTTP: {type(error).__name__}"
        raise NotFetched("failed", "protocol", detail, again=True) from error
    except zlib.error as error:
        raise NotFetched("failed", "encoding", "the content cannot be unpacked", again=True) from error
    except OSError as error:
        detail = f"the host cannot be reached: {error.strerror or error}"
        raise NotFetched("failed", "unreachable", detail, again=True) from error
