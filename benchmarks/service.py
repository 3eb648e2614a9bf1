"""A service under load from another process, on loopback: throughput, deadlines, refusals, memory, ending, swapping.

A bundle of lite0 and a probe is fitted on drawn products. ``raw`` is ``Bundle.answer`` on many photos at once in a
process that does nothing else. Then the service is asked: by as many connections as keep it busy (``capacity``), by
arrivals at ten times that rate (``overload``), and at capacity while its bundle is swapped and while it is told to
end. A request is lost if the service began it, by its own log, and the client got no answer. Processor time is counted
beside the rates: milliseconds of a photo in the one call (``raw_cpu_ms``), of an answer in the service and in the
process that asks; on a machine that does other things as well their ratio, ``ratio_cpu``, says more than that of the
rates.
"""

import argparse
import asyncio
import contextlib
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

ROUTE = "/v1/answer"
DEADLINE = 2.0
CONNECTIONS = 96
#: Times the capacity that the overload has.
TIMES = 10


# The load, in a process of its own: requests as bytes, so that making them costs next to nothing.


def request_of(photo: bytes, name: str) -> bytes:
    """Return a request with one photo, unlike all others: a service may remember those it has seen."""
    remark = name.encode()
    photo = photo[:2] + b"\xff\xfe" + (len(remark) + 2).to_bytes(2, "big") + remark + photo[2:]
    mark = "----shelfwise"
    head = f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    body = head.encode() + photo + f"\r\n--{mark}--\r\n".encode()
    lines = (
        f"POST {ROUTE} HTTP/1.1",
        "Host: 127.0.0.1",
        f"X-Request-ID: {name}",
        f"X-Deadline-Ms: {round(DEADLINE * 1000)}",
        f"Content-Type: multipart/form-data; boundary={mark}",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Wire(asyncio.Protocol):
    """One connection, opened when it is needed; cheap, for it shares the processors with the service."""

    def __init__(self, port: int) -> None:
        self.port, self.got = port, b""
        self.transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[tuple[int, float]] | None = None

    async def ask(self, content: bytes) -> tuple[int, float]:
        """Return the status of the answer, and when it was there.

        The status is 0 where the connection ended before it, -1 where there was none.
        """
        loop = asyncio.get_running_loop()
        if self.transport is None:
            try:
                await loop.create_connection(lambda: self, "127.0.0.1", self.port)
            except OSError:
                return -1, time.monotonic()
        self.answer = loop.create_future()
        if self.transport is None:
            return 0, time.monotonic()
        self.transport.write(content)
        return await self.answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take a part of the answer; tell when it is whole."""
        self.got += data
        head, end, rest = self.got.partition(b"\r\n\r\n")
        if not end:
            return
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if len(rest) < (int(length.group(1)) if length else 0):
            return
        self.got = b""
        if re.search(rb"connection: close", head, re.IGNORECASE):
            self.close()
        self._tell(int(head[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        """Tell that there will be no answer."""
        self.transport, self.got = None, b""
        self._tell(0)

    def _tell(self, status: int) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result((status, time.monotonic()))

    def close(self) -> None:
        """Hang up."""
        if self.transport is not None:
            self.transport.close()
            self.transport = None


async def closed_load(
    port: int, photos: list[bytes], seconds: float, prefix: str
) -> list[tuple[str, int, float, float]]:
    """Ask by ``CONNECTIONS`` connections, each again when it has its answer."""
    done: list[tuple[str, int, float, float]] = []
    numbers, end = iter(range(10**9)), time.monotonic() + seconds

    async def go() -> None:
        wire = Wire(port)
        while time.monotonic() < end:
            number = next(numbers)
            name, begun = f"{prefix}{number}", time.monotonic()
            status, ended = await wire.ask(request_of(photos[number % len(photos)], name))
            done.append((name, status, ended - begun, time.time()))
            if status != 200:
                await asyncio.sleep(0.2)
        wire.close()

    await asyncio.gather(*(go() for _ in range(CONNECTIONS)))
    return done


async def open_load(
    port: int, photos: list[bytes], seconds: float, prefix: str, rate: float
) -> list[tuple[str, int, float, float]]:
    """Ask at a rate, whatever becomes of it; connections that have their answer are used again."""
    done: list[tuple[str, int, float, float]] = []
    free: list[Wire] = []
    rng, tasks = random.Random(0), set()

    async def go(number: int) -> None:
        wire = free.pop() if free else Wire(port)
        name, begun = f"{prefix}{number}", time.monotonic()
        status, ended = await wire.ask(request_of(photos[number % len(photos)], name))
        done.append((name, status, ended - begun, time.time()))
        free.append(wire)

    begun, due, number = time.monotonic(), 0.0, 0
    while due < seconds:
        await asyncio.sleep(max(0.0, begun + due - time.monotonic()))
        tasks.add(asyncio.create_task(go(number)))
        number, due = number + 1, due + rng.expovariate(rate)
    await asyncio.gather(*tasks)
    for wire in free:
        wire.close()
    return done


def load(given: argparse.Namespace) -> None:
    """Be the load: print what became of each request."""
    photos = [path.read_bytes() for path in sorted(Path(given.photos).iterdir())]
    work = (
        open_load(given.port, photos, given.seconds, given.prefix, given.rate)
        if given.rate
        else closed_load(given.port, photos, given.seconds, given.prefix)
    )
    with asyncio.Runner(loop_factory=importlib.import_module("uvloop").new_event_loop) as runner:
        print(json.dumps(runner.run(work)))


# The benchmark.


class Service:
    """A service in a process of its own."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.log = folder / "service.log"
        environment = {
            "OMP_WAIT_POLICY": "PASSIVE",
            **os.environ,
            "SHELFWISE_KEYS": str(folder / "keys.sqlite"),
        }
        command = [
            sys.executable,
            "-m",
            "shelfwise.cli",
            "serve",
            str(bundle),
            "--port",
            "0",
            "--deadline",
            str(DEADLINE),
        ]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stderr=log, env=environment)
        self.port = int(self._wait(r"http://127.0.0.1:(\d+)"))
        self._wait(r'"event": "(ready)"')

    def _wait(self, pattern: str) -> str:
        for _ in range(1200):
            found = re.search(pattern, self.log.read_text())
            if found:
                return found.group(1)
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"the service does not start: {self.log.read_text()[-500:]}")

    def memory(self) -> float:
        """Return the resident megabytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", text)
        return int(found.group(1)) / 1024 if found else 0.0

    def cpu(self) -> float:
        """Return the seconds of processor time it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def began(self) -> dict[str, int]:
        """Return the status of every request by its id, as the service logged it."""
        lines = (json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{"))
        return {line["request_id"]: line["status"] for line in lines if line["event"] == "request"}

    def bundles(self) -> set[str]:
        """Return the bundles that answered."""
        lines = (json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{"))
        return {line["bundle"] for line in lines if line["event"] == "request" and line["bundle"]}


@contextlib.contextmanager
def loading(
    service: Service, photos: Path, seconds: float, prefix: str, rate: float = 0
) -> Iterator[list[Any]]:
    """Load a service while the block runs; give what became of the requests when it ends."""
    command = [sys.executable, __file__, "--load", "--port", str(service.port), "--photos", str(photos)]
    command += ["--seconds", str(seconds), "--prefix", prefix, "--rate", str(rate)]
    found: list[Any] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield found
        found += json.loads(process.stdout.read())


def quantile(values: list[float], share: float) -> float | None:
    """Return a quantile, ``None`` of nothing."""
    return round(sorted(values)[min(len(values) - 1, int(share * len(values)))], 3) if values else None


def children_cpu() -> float:
    """Return the seconds of processor time of all processes that were begun here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def raw_rate(bundle_path: Path, photos: list[Path]) -> tuple[float, float]:
    """Return the products a second of one large call in this process, and the processor seconds of one."""
    from shelfwise.bundle import load as load_bundle
    from shelfwise.predictions import Machine
    from shelfwise.service.products import Product, answers_of

    bundle, machine = load_bundle(bundle_path), Machine(engines={}, keep=False)
    products = [Product(photos=(path.read_bytes(),)) for path in photos]
    answers_of(products[:8], bundle, machine, None)
    rates, used = [], []
    for _ in range(3):
        begun, cpu = time.perf_counter(), time.process_time()
        answers_of(products, bundle, machine, None)
        rates.append(len(products) / (time.perf_counter() - begun))
        used.append((time.process_time() - cpu) / len(products))
    return statistics.median(rates), statistics.median(used)


def fitted(folder: Path, products: int) -> tuple[Path, Path]:
    """Return a bundle fitted on drawn products, and a folder of their photos."""
    import shelfwise as sw
    from shelfwise.rendering import render_catalog

    drawn = render_catalog(folder / "drawn", products=products)
    catalog = sw.Catalog.read(drawn.catalog, images=drawn.train_images)
    sw.fit(catalog, sw.Probe(backbone="lite0"), evidence=3, random_split=False).save(folder / "bundle")
    bad = {each.path.name for each in drawn.unreadable}
    (folder / "photos").mkdir()
    for path in sorted(drawn.test_images.iterdir()):
        if path.name not in bad:
            shutil.copy(path, folder / "photos")
    return folder / "bundle", folder / "photos"


def statuses(found: list[Any]) -> dict[str, int]:
    """Return how many requests had each status."""
    return {str(status): count for status, count in sorted(Counter(each[1] for each in found).items())}


def main(
    quick: bool = False, bundle: Path | None = None, photos: Path | None = None, seconds: float = 12.0
) -> dict[str, Any]:
    """Serve a bundle, one learnt from a rendered catalogue where none is given, and load it."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        if bundle is None or photos is None:
            bundle, photos = fitted(home, 300 if quick else 1200)
        return measured(bundle, photos, home, 3.0 if quick else seconds)


def measured(bundle: Path, photos: Path, folder: Path, seconds: float) -> dict[str, Any]:
    """Load a service to its capacity, over it, while the bundle is swapped and while it ends."""
    raw, raw_cpu = raw_rate(bundle, sorted(photos.iterdir())[:256])
    kept = folder / "served"
    shutil.copytree(bundle, kept)
    service = Service(folder, kept)
    with loading(service, photos, seconds / 3, "warm"):
        pass
    cpu, asking = service.cpu(), children_cpu()
    with loading(service, photos, seconds, "capacity") as busy:
        pass
    cpu, asking = service.cpu() - cpu, children_cpu() - asking
    good = [each[2] for each in busy if each[1] == 200]
    capacity = len(good) / seconds
    before = service.memory()
    peaks = []
    with loading(service, photos, seconds, "over", TIMES * capacity) as flood:
        for _ in range(int(seconds * 4)):
            time.sleep(0.25)
            peaks.append(service.memory())
    taken = [each[2] for each in flood if each[1] == 200]
    refused = [each[2] for each in flood if each[1] in (429, 503)]
    with loading(service, photos, seconds, "swap") as swapped:
        time.sleep(seconds / 3)
        text = (kept / "bundle.json").read_text()
        (kept / "bundle.json").write_text(text + "\n")
        service.process.send_signal(signal.SIGHUP)
    answering = service.bundles()
    with loading(service, photos, seconds / 2, "end") as ended:
        time.sleep(seconds / 4)
        service.process.send_signal(signal.SIGTERM)
    code = service.process.wait(60)
    began = service.began()
    answered = {each[0] for each in (*busy, *flood, *swapped, *ended) if each[1] > 0}
    lost = {name for name in began if not name.startswith("warm") and name not in answered}
    return {
        "benchmark": "service",
        "raw_per_s": round(raw, 1),
        "capacity_per_s": round(capacity, 1),
        "ratio_raw": round(capacity / raw, 3),
        "raw_cpu_ms": round(1000 * raw_cpu, 2),
        "service_cpu_ms": round(1000 * cpu / len(good), 2),
        "asking_cpu_ms": round(1000 * asking / len(good), 2),
        "ratio_cpu": round(raw_cpu * len(good) / (cpu + asking), 3),
        "deadline_s": DEADLINE,
        "capacity_p99_s": quantile(good, 0.99),
        "capacity_statuses": statuses(busy),
        "overload_asked_per_s": round(len(flood) / seconds, 1),
        "overload_statuses": statuses(flood),
        "overload_accepted_per_s": round(len(taken) / seconds, 1),
        "overload_accepted_p99_s": quantile(taken, 0.99),
        "overload_accepted_worst_s": quantile(taken, 1.0),
        "overload_refused_p50_s": quantile(refused, 0.5),
        "overload_refused_p99_s": quantile(refused, 0.99),
        "memory_mb": [round(before), round(max(peaks)), round(peaks[-1])],
        "swap_statuses": statuses(swapped),
        "swap_bundles": len(answering),
        "end_statuses": statuses(ended),
        "end_exit": code,
        "lost": len(lost),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--bundle", type=Path, help="serve this one")
    parser.add_argument("--photos", type=Path, help="a folder of photos to ask about")
    parser.add_argument("--load", action="store_true")
    parser.add_argument("--port", type=int)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--prefix", default="")
    parser.add_argument("--rate", type=float, default=0.0)
    given = parser.parse_args()
    if given.load:
        load(given)
    else:
        print(json.dumps(main(given.quick, given.bundle, given.photos, given.seconds)))
