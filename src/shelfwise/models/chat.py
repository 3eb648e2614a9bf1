"""Chat: one question about one picture, put to a server that speaks the OpenAI chat-completions protocol.

It does not know what is asked, nor what a reply means. vLLM and llama.cpp speak this protocol too. What a server does
not offer (a JSON schema for the reply, log-probabilities) is found out by its refusal and left out from then on.
Whatever comes back, the outcome is a ``Said`` or a ``ChatError``.
"""

import email.utils
import hashlib
import json
import math
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from shelfwise.errors import ChatError, require

Form = Literal["auto", "schema", "object", "text"]
#: Statuses that may go away by themselves (RFC 9110, RFC 6585); every 5xx as well.
PASSING = (408, 409, 425, 429)
#: Statuses that every request would meet.
HOPELESS = (401, 403, 404)
#: Seconds of the first wait, and of the longest; a server's own wish is followed up to ``LONGEST_WISH``.
FIRST_WAIT, LONGEST_WAIT, LONGEST_WISH = 0.5, 30.0, 300.0
#: Requests that fail for good in a row before one attempt has to do.
OUT_OF_PATIENCE = 16
#: Bytes of a body that are read.
MOST_BYTES = 8 << 20
#: Sent where no key is set: servers of one's own ask for none.
NO_KEY = "none"


@dataclass(frozen=True)
class Step:
    """One token of a reply.

    Attributes:
        text: the token.
        others: the likely tokens at its place, itself among them, with their probabilities.
    """

    text: str
    others: Mapping[str, float]


@dataclass(frozen=True)
class Said:
    """What a server said.

    Attributes:
        text: the reply; empty where it has no text.
        steps: its tokens, put together the reply; none where the server does not give them.
        read: tokens of the question and its picture.
        written: tokens of the reply.
        seconds: how long it took, waits included.
    """

    text: str
    steps: tuple[Step, ...] = ()
    read: int = 0
    written: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Endpoint:
    """A server and how it is asked.

    Attributes:
        url: the address before ``/chat/completions``.
        model: what the server calls the model.
        key: the environment variable that holds the key.
        form: how the reply is bound: ``schema``, ``object`` (any JSON object), ``text`` (not at all), or ``auto``, the
            first of these that the server takes.
        others: likely tokens asked for at every place of the reply; 0 for none.
        most: tokens of a reply.
        timeout: seconds without a byte before an attempt counts as failed.
        retries: attempts after the first one.
        seed: sent along; the temperature is 0.
    """

    url: str
    model: str
    key: str
    form: Form
    others: int
    most: int
    timeout: float
    retries: int
    seed: int

    def levels(self) -> list[tuple[Form, int]]:
        """Return what to ask for, the most first: the form of the reply, and likely tokens."""
        forms: list[Form] = ["schema", "object", "text"] if self.form == "auto" else [self.form]
        first: list[tuple[Form, int]] = [(forms[0], self.others)] if self.others else []
        return [*first, *((form, 0) for form in forms)]


class Chat:
    """A connection to an endpoint; safe for threads."""

    def __init__(self, endpoint: Endpoint, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Open it; nothing is sent.

        Raises:
            MissingExtra: the package ``openai`` is not installed.
        """
        self.endpoint, self._sleep = endpoint, sleep
        self._openai: Any = require("openai", extra="vqa")
        self._key = os.environ.get(endpoint.key) or NO_KEY
        self._client = self._openai.OpenAI(
            base_url=endpoint.url,
            api_key=self._key,
            timeout=endpoint.timeout,
            max_retries=0,
        )
        self._levels, self._level, self._failures = endpoint.levels(), 0, 0
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> "Chat":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, question: str, picture: str, schema: Mapping[str, Any]) -> Said:
        """Ask one question about one picture.

        Args:
            question: in words.
            picture: as a data URL.
            schema: JSON schema of the reply.

        Raises:
            ChatError: the request failed for good; ``hopeless`` where every other one would too.
        """
        began = time.monotonic()
        digest = hashlib.blake2b(f"{question}\x1f{picture}".encode(errors="replace"), digest_size=8)
        jitter = random.Random(digest.digest())
        retries = self.endpoint.retries if self._failures < OUT_OF_PATIENCE else 0
        for attempt in range(retries + 1):
            try:
                said = self._negotiate(question, picture, schema)
            except _PassingError as fault:
                if attempt == retries:
                    with self._lock:
                        self._failures += 1
                    tries = f"after {attempt + 1} attempts: " if attempt else ""
                    raise ChatError(f"{tries}{fault}") from fault
                backoff = min(FIRST_WAIT * 2**attempt, LONGEST_WAIT) * (0.75 + 0.5 * jitter.random())
                self._sleep(max(backoff, min(fault.wish, LONGEST_WISH)))
            else:
                self._failures = 0
                return Said(said.text, said.steps, said.read, said.written, time.monotonic() - began)
        raise AssertionError("the last attempt returns or raises")

    def _negotiate(self, question: str, picture: str, schema: Mapping[str, Any]) -> Said:
        """Ask for the most that the server is known to take; what it refuses, ask for less."""
        start = self._level
        for level in range(start, len(self._levels)):
            try:
                said = self._once(question, picture, schema, *self._levels[level])
            except _RefusedError as fault:
                if level + 1 == len(self._levels):
                    raise ChatError(str(fault)) from fault
            else:
                with self._lock:
                    self._level = max(self._level, level)
                return said
        raise AssertionError("the last level returns or raises")

    def _once(self, question: str, picture: str, schema: Mapping[str, Any], form: Form, others: int) -> Said:
        wanted: dict[str, Any] = {}
        if form == "schema":
            named = {"name": "attributes", "strict": True, "schema": dict(schema)}
            wanted["response_format"] = {"type": "json_schema", "json_schema": named}
        elif form == "object":
            wanted["response_format"] = {"type": "json_object"}
        if others:
            wanted |= {"logprobs": True, "top_logprobs": others}
        content = [
            {"type": "image_url", "image_url": {"url": picture}},
            {"type": "text", "text": question},
        ]
        failures = self._openai
        try:
            raw = self._client.chat.completions.with_raw_response.create(
                model=self.endpoint.model,
                messages=[{"role": "user", "content": content}],
                temperature=0,
                seed=self.endpoint.seed,
                max_tokens=self.endpoint.most,
                **wanted,
            )
            body: bytes = raw.content
        except failures.APIStatusError as error:
            raise self._explained(error) from error
        except failures.APIConnectionError as error:
            raise _PassingError(
                f"{self.endpoint.url} cannot be reached: {_said_of(error.__cause__ or error)}"
            ) from error
        except failures.OpenAIError as error:
            raise ChatError(f"{self.endpoint.url}: {_said_of(error)}") from error
        return read_body(body)

    def _explained(self, error: Any) -> "ChatError | _PassingError | _RefusedError":
        status = int(error.status_code)
        said = f"{self.endpoint.url} answered {status}: {_said_of(error)}"
        if self._key != NO_KEY:
            said = said.replace(self._key, "(key)")
        if status in PASSING or status >= 500:
            return _PassingError(said, _wish(error.response.headers.get("retry-after")))
        if status in HOPELESS:
            now = (
                f"set the key in the environment variable {self.endpoint.key}"
                if status != 404
                else f"check the address and the model's name, {self.endpoint.model!r}"
            )
            return ChatError(f"{said}; {now}", hopeless=True)
        return _RefusedError(said) if status in (400, 422) else ChatError(said)


class _PassingError(Exception):
    """A failure that may go away by itself; ``wish`` is how many seconds the server wants to be left alone."""

    def __init__(self, message: str, wish: float = 0.0) -> None:
        super().__init__(message)
        self.wish = wish


class _RefusedError(Exception):
    """A request that the server does not take as it is."""


def read_body(body: bytes) -> Said:
    """Read the body of a chat completion.

    Raises:
        _PassingError: it is none. A proxy's page or a server that is starting may be behind it, so it is tried again.
    """
    if len(body) > MOST_BYTES:
        raise _PassingError(f"the server sent {len(body):,} bytes, more than the limit of {MOST_BYTES:,}")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _PassingError(f"the server sent something that is not JSON: {_plain(body[:80])}") from error
    choices = found.get("choices") if isinstance(found, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    if not isinstance(first, dict) or not isinstance(message, dict):
        raise _PassingError(f"the server sent JSON that is no chat completion: {_plain(body[:80])}")
    text = _text(message.get("content"))
    usage = found.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    steps = _steps(first.get("logprobs"), text)
    return Said(text, steps, _count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens")))


def _text(content: Any) -> str:
    """The text of a message: itself, or that of its parts."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _steps(logprobs: Any, text: str) -> tuple[Step, ...]:
    """The tokens of a reply; none where they are missing, odd, or not those of the text."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    steps = []
    for item in content if isinstance(content, list) else ():
        token, probability = _token(item)
        if token is None or probability is None:
            return ()
        likely = item.get("top_logprobs")
        others = {token: probability}
        for other in likely if isinstance(likely, list) else ():
            name, share = _token(other)
            if name is not None and share is not None:
                others[name] = max(share, others.get(name, 0.0))
        steps.append(Step(token, others))
    written = "".join(step.text for step in steps)
    # Some servers list the token that ends the reply too.
    while steps and len(written) > len(text):
        written = written.removesuffix(steps.pop().text)
    return tuple(steps) if written == text else ()


def _token(item: Any) -> tuple[str | None, float | None]:
    if not isinstance(item, dict):
        return None, None
    token, logprob = item.get("token"), item.get("logprob")
    if not isinstance(token, str) or isinstance(logprob, bool) or not isinstance(logprob, int | float):
        return None, None
    try:
        return token, None if math.isnan(logprob) else math.exp(min(float(logprob), 0.0))
    except OverflowError:
        return token, 0.0


def _count(value: Any) -> int:
    right = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40
    return int(value) if right else 0


def _wish(header: str | None) -> float:
    """Seconds that a Retry-After header asks for: a number or a date (RFC 9110); 0 where it is neither."""
    if not header:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0


def _said_of(error: BaseException) -> str:
    return _plain(str(error).encode(errors="replace")[:300]) or type(error).__name__


def _plain(data: bytes) -> str:
    """Bytes as one short readable line."""
    line = " ".join(data.decode("utf-8", errors="replace").split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)
