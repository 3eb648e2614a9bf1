"""The review desk: which doubtful answers people look at, the riskiest first, and what they said.

It does not know HTTP, nor how an item was found. All calls may come from several threads and processes at once.
"""

import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from shelfwise.errors import DeskError, UsageError
from shelfwise.roles import Layout
from shelfwise.service import ledger
from shelfwise.service.databases import Database, Session, connect, is_server, shown
from shelfwise.service.items import (
    Agreement,
    Filters,
    Item,
    LookAlike,
    Progress,
    Reason,
    Tally,
    cohens_kappa,
    from_json,
    outcome,
    value_after,
)
from shelfwise.service.verdicts import Kind, Verdict, broken
from shelfwise.taxonomy import Taxonomy

__all__ = [
    "Agreement",
    "Desk",
    "Filters",
    "Item",
    "Kind",
    "LookAlike",
    "Progress",
    "Reason",
    "Tally",
    "Verdict",
]

#: Seconds for which an item is kept for whoever was given it.
LEASE = 300.0
#: Characters of a name, a key or a token.
LONGEST = 200
EVERYTHING = Filters()
_OPEN = (
    "given < wanted AND NOT EXISTS (SELECT 1 FROM standing s WHERE s.item = items.item AND s.reviewer = ?) "
    "AND (holder IS NULL OR holder = ? OR held < ?)"
)


class Desk:
    """Items to review and the verdicts on them, in a SQLite file or a PostgreSQL database."""

    def __init__(self, database: Database, place: str) -> None:
        self._database, self.place = database, place

    @classmethod
    def open(cls, place: str | Path, *, new: bool = True) -> "Desk":
        """Open a desk, made on first use.

        Args:
            place: a SQLite file, or ``postgresql://...``.
            new: whether a file that is not there is made.

        Raises:
            DeskError: it cannot be opened, or is not a desk of this format.
            MissingExtra: a server is named, and psycopg is not installed.
        """
        if not new and not is_server(place) and not Path(place).is_file():
            raise DeskError(
                f"there is no desk at {place}: shelfwise labels queue BUNDLE TABLE --desk FILE makes one"
            )
        database = connect(place)
        try:
            with database.writing() as session:
                ledger.prepare(session, shown(place))
        except BaseException:
            database.close()
            raise
        return cls(database, shown(place))

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def __enter__(self) -> "Desk":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fill(
        self,
        items: Iterable[Item],
        *,
        bundle: str,
        taxonomy: Taxonomy,
        layout: Layout | None = None,
        second: float = 0.05,
    ) -> int:
        """Put items on the desk; one that is there already is renewed unless it has a verdict.

        Args:
            items: the questions.
            bundle: hash of the bundle that answered.
            taxonomy: its taxonomy.
            layout: of the training table, for ``labels export``.
            second: the share of items that two reviewers look at.

        Returns:
            How many were not there before.

        Raises:
            UsageError: a share that is not between 0 and 1.
        """
        if not 0 <= second <= 1:
            raise UsageError(
                f"the share of items that two reviewers look at is between 0 and 1, not {second}"
            )
        given = list(items)
        with self._database.writing() as session:
            ledger.keep_bundle(session, bundle, taxonomy, layout)
            return ledger.put(session, given, bundle, second)

    def next(self, reviewer: str, filters: Filters = EVERYTHING, lease: float = LEASE) -> Item | None:
        """Return the riskiest open item that no other reviewer holds, and hold it for this one.

        What this reviewer held before is let go.

        Args:
            reviewer: who asks.
            filters: which items.
            lease: seconds for which nobody else is given it.
        """
        _check(reviewer)
        now = time.time()
        where, values = ledger.where(filters)
        with self._database.writing() as session:
            session.run("UPDATE items SET holder = NULL WHERE holder = ?", reviewer)
            found = session.rows(
                f"SELECT item, body FROM items WHERE {_OPEN}{where} ORDER BY risk DESC, item LIMIT 1",
                *(reviewer, reviewer, now, *values),
            )
            if not found:
                return None
            session.run(
                "UPDATE items SET holder = ?, held = ? WHERE item = ?", reviewer, now + lease, found[0][0]
            )
        return from_json(found[0][1])

    def item(self, key: str) -> Item:
        """Return an item.

        Raises:
            DeskError: there is none with this key.
        """
        with self._database.reading() as session:
            return self._item(session, key)[0]

    def items(self) -> tuple[Item, ...]:
        """Return all items, the riskiest first."""
        with self._database.reading() as session:
            rows = session.rows("SELECT body FROM items ORDER BY risk DESC, item")
        return tuple(from_json(body) for (body,) in rows)

    def _item(self, session: Session, key: str) -> tuple[Item, str, str]:
        """Return an item, the bundle that answered, and the bundle's taxonomy."""
        statement = (
            "SELECT items.body, items.bundle, bundles.taxonomy FROM items "
            "JOIN bundles ON bundles.bundle = items.bundle WHERE item = ?"
        )
        found = session.rows(statement, key) if key.isprintable() else []
        if not found:
            raise DeskError(f"{self.place}: there is no item {key!r} on this desk; ask for the next one")
        body, bundle, taxonomy = found[0]
        return from_json(body), bundle, taxonomy

    def waiting(self, filters: Filters = EVERYTHING, limit: int = 50) -> tuple[Item, ...]:
        """Return open items, the riskiest first; holds none."""
        where, values = ledger.where(filters)
        with self._database.reading() as session:
            rows = session.rows(
                f"SELECT body FROM items WHERE given < wanted{where} ORDER BY risk DESC, item LIMIT ?",
                *values,
                limit,
            )
        return tuple(from_json(body) for (body,) in rows)

    def cluster(self, key: str, reviewer: str | None = None) -> tuple[Item, ...]:
        """Return the open items of an item's cluster, itself first where it is open.

        Args:
            key: the item's.
            reviewer: without those that this reviewer has seen or another one holds: what ``accept_cluster`` accepts.
        """
        with self._database.reading() as session:
            return self._cluster(session, self._item(session, key)[0], reviewer)

    def _cluster(self, session: Session, item: Item, reviewer: str | None) -> tuple[Item, ...]:
        same, value = ("cluster = ?", item.cluster) if item.cluster else ("item = ?", item.key)
        still, values = (
            ("given < wanted", ()) if reviewer is None else (_OPEN, (reviewer, reviewer, time.time()))
        )
        rows = session.rows(
            f"SELECT body FROM items WHERE {still} AND {same} ORDER BY risk DESC, item", *values, value
        )
        found = [from_json(body) for (body,) in rows]
        return tuple(sorted(found, key=lambda each: each.key != item.key))

    def decide(
        self, reviewer: str, key: str, kind: Kind, value: str | None = None, *, token: str | None = None
    ) -> Verdict:
        """Record what a reviewer says of an item.

        A verdict is never refused because somebody else was quicker: it then counts as a second look.

        Args:
            reviewer: who.
            key: the item's.
            kind: ``accept`` (the value seen), ``correct`` (``value``), ``not_applicable``, ``not_visible``, or ``skip``
                (not shown to this reviewer again).
            value: with ``correct``, one of the item's values, or a number where one is asked for.
            token: names this act; the same token again returns the verdict that was recorded first.

        Raises:
            DeskError: no such item, an unknown value, or a token that named another act.
        """
        _check(reviewer, key, token)
        with self._database.writing() as session:
            said = ledger.of_token(session, reviewer, token)
            if said:
                first = said[0]
                same = (first.item, first.kind) == (key, kind)
                if same and kind == "correct":
                    same = first.after == value_after(self._item(session, key)[0], kind, value)
                if not same:
                    raise _used(token, first)
                return first
            return self._decide(session, reviewer, key, kind, value, token or _token())

    def _decide(
        self, session: Session, reviewer: str, key: str, kind: Kind, value: str | None, token: str
    ) -> Verdict:
        item, bundle, taxonomy = self._item(session, key)
        after = value_after(item, kind, value)
        mine = ledger.of_item(session, key, reviewer)
        before = mine.after if mine is not None else item.stated
        draft = Verdict(0, key, reviewer, _now(), kind, before, after, bundle, taxonomy, token)
        verdict = ledger.append(session, draft)
        ledger.stand(session, key, reviewer, verdict)
        session.run("UPDATE items SET holder = NULL WHERE item = ? AND holder = ?", key, reviewer)
        return verdict

    def accept_cluster(self, reviewer: str, key: str, *, token: str | None = None) -> tuple[Verdict, ...]:
        """Accept the value seen for all items of an item's cluster that are open to this reviewer, in one act.

        Args:
            reviewer: who.
            key: the item's.
            token: as in ``decide``.

        Raises:
            DeskError: as ``decide``.
        """
        _check(reviewer, key, token)
        with self._database.writing() as session:
            said = ledger.of_token(session, reviewer, token)
            if said:
                if said[0].kind != "accept" or key not in {each.item for each in said}:
                    raise _used(token, said[0])
                return tuple(said)
            item, token = self._item(session, key)[0], token or _token()
            members = self._cluster(session, item, reviewer)
            if key not in {each.key for each in members}:
                members = (item, *members)
            return tuple(self._decide(session, reviewer, each.key, "accept", None, token) for each in members)

    def undo(self, reviewer: str, *, token: str | None = None) -> Verdict | None:
        """Take back the reviewer's last act that stands, a whole cluster at once, by further records.

        The items are open again, and the one that the act began with is held for the reviewer.

        Args:
            reviewer: who.
            token: as in ``decide``.

        Returns:
            The record for the item that the act began with; None where there is nothing to take back.

        Raises:
            DeskError: a token that named another act.
        """
        _check(reviewer, token=token)
        with self._database.writing() as session:
            said = ledger.of_token(session, reviewer, token)
            if said:
                if said[0].kind != "undo":
                    raise _used(token, said[0])
                return said[0]
            records = ledger.take_back(session, reviewer, _now(), token or _token())
            if not records:
                return None
            now = time.time()
            session.run(
                "UPDATE items SET holder = ?, held = ? WHERE item = ? AND (holder IS NULL OR held < ?)",
                *(reviewer, now + LEASE, records[0].item, now),
            )
            return records[0]

    def progress(self) -> Progress:
        """Return how many items are done and left."""
        with self._database.reading() as session:
            by = ledger.tallies(session)
            reviewers = session.rows(
                "SELECT reviewer, COUNT(*) FROM standing WHERE kind <> 'skip' GROUP BY reviewer "
                "ORDER BY COUNT(*) DESC, reviewer"
            )
        tallied = tuple((str(name), int(count)) for name, count in reviewers)
        done, left = (by[""][0].done, by[""][0].left) if by[""] else (0, 0)
        attributes, categories, suppliers, reasons = (by[name] for name in ledger.TALLIED)
        return Progress(done, left, attributes, categories, suppliers, reasons, tallied)

    def agreement(self) -> Agreement:
        """Return how often two reviewers of one item agree: the first two, where more looked at it.

        For kappa an outcome is the value seen, the value stated, another one by name, or that none can be told, so
        that outcomes of different attributes can be counted together.
        """
        with self._database.reading() as session:
            said = ledger.all_standing(session)
            keys = [key for key, each in said.items() if len(each) > 1]
            items = {key: self._item(session, key)[0] for key in keys}
        pairs, disagreed = [], []
        for key in keys:
            first, second = sorted(said[key][:2], key=lambda verdict: verdict.reviewer)
            pairs.append((outcome(items[key], first), outcome(items[key], second)))
            if pairs[-1][0] != pairs[-1][1]:
                disagreed.append(key)
        return Agreement(len(pairs), len(pairs) - len(disagreed), cohens_kappa(pairs), tuple(disagreed))

    def verdicts(self) -> tuple[Verdict, ...]:
        """Return all records, the first one first."""
        with self._database.reading() as session:
            return tuple(ledger.records(session))

    def standing(self, key: str) -> tuple[Verdict, ...]:
        """Return the verdict of each reviewer on an item that stands, skips aside, the oldest first."""
        with self._database.reading() as session:
            return tuple(ledger.all_standing(session, key).get(key, ()))

    def outcomes(self) -> dict[str, tuple[Verdict, ...]]:
        """Return, for every item with verdicts that stand, skips aside, what each reviewer says of it."""
        with self._database.reading() as session:
            return {key: tuple(said) for key, said in ledger.all_standing(session).items()}

    def bundles(self) -> tuple[tuple[str, Taxonomy, Layout | None], ...]:
        """Return every bundle whose answers are on the desk: its hash, taxonomy and layout, the latest last."""
        with self._database.reading() as session:
            return ledger.kept_bundles(session)

    def verify(self) -> tuple[str, ...]:
        """Return what is wrong with the chain of records and what was made of it, in sentences; empty for nothing."""
        with self._database.reading() as session:
            records = ledger.records(session)
            return (*broken(records), *ledger.astray(session, records))


def _check(reviewer: str, key: str = "", token: str | None = None) -> None:
    """Refuse names that no database could keep, or that nobody could read in a record."""
    if not reviewer.strip():
        raise DeskError("a reviewer needs a name")
    for what, text in (("reviewer's name", reviewer), ("item's key", key), ("token", token or "")):
        if len(text) > LONGEST or not text.isprintable():
            raise DeskError(f"a {what} has at most {LONGEST} printable characters, not {text[:40]!r}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _token() -> str:
    return uuid.uuid4().hex


def _used(token: str | None, verdict: Verdict) -> DeskError:
    return DeskError(
        f"the token {token!r} named another act already: {verdict.kind!r} on item {verdict.item} "
        f"(record {verdict.seq}); use a new one"
    )
