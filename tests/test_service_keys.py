"""Keys of the service: secrets are kept nowhere, revoking counts, and a ring never falls open."""

import sqlite3
import stat
import time
from pathlib import Path

import pytest

from conftest import Shell
from shelfwise.errors import KeyRingError, UsageError
from shelfwise.service.keys import FRESH, KeyRing
from shelfwise.service.limits import Buckets


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing(tmp_path / "deep" / "keys.sqlite")


def test_a_secret_is_known_again_and_kept_nowhere(ring: KeyRing):
    secret = ring.add("till", ["predict", "review"], rate=5)
    key = ring.check(secret)
    assert key is not None
    assert (key.name, key.scopes, key.rate) == ("till", ("predict", "review"), 5)
    ring.close()
    content = b"".join(path.read_bytes() for path in ring.path.parent.iterdir())
    assert secret.encode() not in content
    assert secret.removeprefix("sw_").encode() not in content
    assert stat.S_IMODE(ring.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("wrong", ["", "sw_", "x" * 46, "sw_\udcff"])
def test_another_secret_is_not_known(ring: KeyRing, wrong: str):
    secret = ring.add("till", ["predict"])
    assert ring.check(wrong) is None
    assert ring.check(secret + "x") is None
    assert ring.check(secret[:-1]) is None


def test_secrets_differ_and_are_long(ring: KeyRing):
    secrets = {ring.add(f"key{number}", ["predict"]) for number in range(20)}
    assert len(secrets) == 20
    assert min(map(len, secrets)) >= 43 + len("sw_")


def test_revoking_counts_at_once_and_in_every_open_ring_a_moment_later(ring: KeyRing):
    other = KeyRing(ring.path)
    secret = ring.add("till", ["predict"])
    assert other.check(secret) is not None
    ring.revoke("till")
    assert ring.check(secret) is None
    time.sleep(1.5 * FRESH)
    assert other.check(secret) is None
    assert [key.revoked is not None for key in other.listed()] == [True]


def test_a_ring_whose_last_key_is_revoked_is_not_empty(ring: KeyRing):
    assert ring.empty
    ring.add("till", ["predict"])
    ring.revoke("till")
    assert not ring.empty


def test_a_name_is_used_once_even_after_it_was_revoked(ring: KeyRing):
    ring.add("till", ["predict"])
    ring.revoke("till")
    with pytest.raises(UsageError, match="'till' already"):
        ring.add("till", ["admin"])


@pytest.mark.parametrize(
    ("name", "scopes", "rate", "said"),
    [
        ("", ["predict"], None, "cannot name a key"),
        ("two words", ["predict"], None, "cannot name a key"),
        ("-x", ["predict"], None, "cannot name a key"),
        ("x", ["predcit"], None, "Did you mean 'predict'"),
        ("x", [], None, "needs a scope"),
        ("x", ["predict"], 0, "above 0"),
        ("x", ["predict"], float("nan"), "above 0"),
    ],
)
def test_what_cannot_be_a_key_is_refused(
    ring: KeyRing, name: str, scopes: list[str], rate: float | None, said: str
):
    with pytest.raises(UsageError, match=said):
        ring.add(name, scopes, rate=rate)
    assert ring.empty


def test_revoking_what_is_not_there_says_what_is(ring: KeyRing):
    ring.add("till", ["predict"])
    with pytest.raises(UsageError, match="Did you mean 'till'"):
        ring.revoke("tull")


def test_a_file_that_is_no_ring_is_refused(tmp_path: Path):
    path = tmp_path / "keys.sqlite"
    path.write_text("hello, this is not a database at all")
    with pytest.raises(KeyRingError, match=r"keys\.sqlite"):
        KeyRing(path)


def test_a_ring_that_breaks_later_says_so(ring: KeyRing):
    with sqlite3.connect(ring.path) as connection:
        connection.execute("DROP TABLE keys")
    with pytest.raises(KeyRingError, match="cannot be used"):
        ring.check("sw_x")


def test_the_verbs_add_list_and_revoke(shell: Shell, tmp_path: Path):
    path = tmp_path / "keys.sqlite"
    added = shell(
        "keys", "add", "till", "--scope", "predict", "--scope", "admin", "--rate", "2.5", "--keys", path
    )
    secret = added.out.strip()
    assert added.code == 0
    assert KeyRing(path).check(secret) is not None
    listed = shell("keys", "list", "--keys", path)
    assert "till: predict, admin, 2.5 requests a second" in listed.out
    assert "good" in listed.out
    assert secret not in listed.out + listed.err + added.err
    assert shell("keys", "revoke", "till", "--keys", path).code == 0
    assert KeyRing(path).check(secret) is None
    assert "revoked" in shell("keys", "list", "--keys", path).out
    again = shell("keys", "revoke", "till", "--keys", path)
    assert (again.code, "no good key 'till'" in again.message) == (2, True)


def test_a_missing_file_of_keys_is_not_made_by_revoke(shell: Shell, tmp_path: Path):
    path = tmp_path / "keys.sqlite"
    assert shell("keys", "revoke", "till", "--keys", path).code == 2
    assert not path.exists()


def test_a_bucket_gives_a_rate_and_says_how_long_to_wait():
    now = [0.0]
    buckets = Buckets(lambda: now[0])
    assert [buckets.take("a", 2) for _ in range(2)] == [0, 0]
    assert buckets.take("a", 2) == pytest.approx(0.5)
    assert buckets.take("b", 2) == 0
    now[0] = 0.5
    assert buckets.take("a", 2) == 0
    assert buckets.take("a", 2) == pytest.approx(0.5)
    now[0] = 100
    assert [buckets.take("a", 2) > 0 for _ in range(3)] == [False, False, True]
    assert buckets.take("slow", 0.1) == 0
    assert buckets.take("slow", 0.1) == pytest.approx(10)
