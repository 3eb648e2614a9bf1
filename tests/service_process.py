"""A service in a process of its own, for tests: the command line with the toy backbone registered."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROGRAM = "import shelfwise.testing; from shelfwise.cli import run; run()"


class Running:
    """A process that serves the toy bundle."""

    def __init__(self, bundle: Path, folder: Path, *words: str) -> None:
        self.log = folder / "service.log"
        words = ("serve", str(bundle), "--port", "0", "--engine", "torch", "--jobs", "1", *words)
        environment = {**os.environ, "SHELFWISE_KEYS": str(folder / "keys.sqlite"), "OMP_NUM_THREADS": "1"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *words, "--cache", str(folder / "cache")],
                stderr=log,
                env=environment,
            )
        self.port = int(self.wait_for(r"http://127.0.0.1:(\d+)"))
        self.wait_for(r'"event": "(ready)"')
        self.url = f"http://127.0.0.1:{self.port}"

    def wait_for(self, pattern: str, seconds: float = 90.0) -> str:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = re.search(pattern, self.log.read_text())
            if found:
                return found.group(1)
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"{pattern} is not in the log: {self.log.read_text()[-2000:]}")

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def memory(self) -> float:
        """Resident megabytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", text)
        assert found is not None
        return int(found.group(1)) / 1024

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)
