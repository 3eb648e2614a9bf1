"""The code blocks of a page, and a shell that runs them in order in one folder.

A comment on the line before a block says what is special about it:

``<!-- not run: REASON -->``  nobody can run it here; REASON is one of those that `test_docs_blocks.py` allows
``<!-- file: NAME -->``       the block is a file of that name, written before the next block runs
``<!-- exit: N -->``          its commands may end with N as well as with 0
"""

import contextlib
import importlib
import io
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FENCE = re.compile(r"(?:^<!-- ([^\n]*) -->\n)?^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: What this process does itself, which is quicker than a shell of its own. Everything else goes to bash.
OWN = ("shelfwise", "cd", "cp", "mkdir")
#: The port that pages write; a page that serves gets a free one in its place.
PORT = "8000"


@dataclass(frozen=True)
class Block:
    """One fenced block of a page: where it stands, its language and the comment before it."""

    page: Path
    line: int
    language: str
    body: str
    mark: str

    @property
    def runs(self) -> bool:
        return self.language in ("sh", "bash", "python") and not self.reason and not self.file

    @property
    def reason(self) -> str:
        return self.mark.removeprefix("not run: ") if self.mark.startswith("not run: ") else ""

    @property
    def file(self) -> str:
        return self.mark.removeprefix("file: ") if self.mark.startswith("file: ") else ""

    @property
    def codes(self) -> tuple[int, ...]:
        return (0, int(self.mark.removeprefix("exit: "))) if self.mark.startswith("exit: ") else (0,)


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page that have a language, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text[: found.start(2)].count("\n") + 1, found[2], found[3], found[1] or "")
        for found in FENCE.finditer(text)
    ]


def logical_lines(body: str) -> list[str]:
    """Lines of a shell block; one that ends with a backslash goes on in the next. Without comments."""
    joined = re.sub(r"\s*\\\n\s*", " ", body)
    return [line for text in joined.splitlines() if (line := re.sub(r"(^|\s+)#.*$", "", text).strip())]


@dataclass
class Walk:
    """A reader who types a page's blocks into one folder, one after another."""

    folder: Path
    cache: Path
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})
    said: str = ""
    port: str = ""
    servers: list[subprocess.Popen[str]] = field(default_factory=list)

    def follow(self, blocks: list[Block]) -> None:
        """Run every block that runs, and write every block that is a file."""
        os.chdir(self.folder)
        sys.path.insert(0, str(self.folder))
        try:
            for block in blocks:
                self._take(block)
        finally:
            sys.path.remove(str(self.folder))
            for module in [name for name in sys.modules if (self.folder / f"{name}.py").is_file()]:
                del sys.modules[module]
            self._stop()

    def _take(self, block: Block) -> None:
        where = f"{block.page.name}:{block.line}"
        body = block.body.replace(PORT, self.port) if self.port else block.body
        if block.file:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(body, encoding="utf-8")
            importlib.invalidate_caches()
        elif block.runs and block.language == "python":
            exec(compile(body, where, "exec"), self.names)
        elif block.runs:
            lines = logical_lines(body)
            if all(line.split()[0] in OWN and not re.search(r"[|<>&;$`*]", line) for line in lines):
                for line in lines:
                    self._own(where, shlex.split(line), block.codes)
            else:
                self._bash(where, body, block.codes)

    def _own(self, where: str, words: list[str], codes: tuple[int, ...]) -> None:
        verb, *rest = words
        if verb == "cd":
            os.chdir(rest[0])
        elif verb == "cp":
            *sources, target = rest
            for source in sources:
                copy = shutil.copytree if Path(source).is_dir() else shutil.copy
                copy(source, target)
        elif verb == "mkdir":
            Path(rest[-1]).mkdir(parents=True)
        elif rest[0] == "serve":
            self._serve(rest)
        else:
            code, self.said = run_here(rest)
            assert code in codes, f"{where}: {' '.join(words)}\nended with {code}\n{self.said}"

    def _bash(self, where: str, body: str, codes: tuple[int, ...]) -> None:
        """A block in a shell of its own, begun where the last one ended; the next begins where it ends."""
        ended = self.folder / ".ended"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"trap 'pwd > {shlex.quote(str(ended))}' EXIT\n{body}"],
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        self.said = done.stdout + done.stderr
        assert done.returncode in codes, f"{where}:\n{body}\nended with {done.returncode}\n{self.said}"
        os.chdir(ended.read_text(encoding="utf-8").strip())

    def _environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "SHELFWISE_CACHE": str(self.cache), "OMP_NUM_THREADS": "1"}

    def _serve(self, rest: list[str]) -> None:
        """Start a server beside the page, on a free port, and wait until it is ready."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        words = [port if word in (PORT, self.port) else word for word in rest]
        words += ["--port", port] if "--port" not in words else []
        self.port = port
        log = open("server.log", "w", encoding="utf-8")  # noqa: SIM115  (the server writes to it)
        with log:
            server = subprocess.Popen(
                [sys.executable, "-m", "shelfwise.cli", *words],
                env=self._environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.servers.append(server)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            assert server.poll() is None, Path("server.log").read_text(encoding="utf-8")
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5) as answer:
                    assert answer.status == 200
                return
            time.sleep(0.1)
        raise AssertionError("the server was not ready within a minute")

    def _stop(self) -> None:
        for server in self.servers:
            server.send_signal(signal.SIGTERM)
        codes = [server.wait(timeout=30) for server in self.servers]
        assert not any(codes), f"servers ended with {codes}"


def run_here(words: list[str]) -> tuple[int, str]:
    """One command line in this process, through its real edge: exit code, and what it said on both streams."""
    from shelfwise.cli import run

    said, kept = io.StringIO(), sys.argv
    sys.argv = ["shelfwise", *words]
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            run()
    except SystemExit as end:
        return int(end.code or 0), said.getvalue()
    finally:
        sys.argv = kept
