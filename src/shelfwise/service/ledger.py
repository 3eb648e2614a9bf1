"""The ledger: the tables of a desk, and the records that are only ever added to them.

It does not know what may be said of an item. Every function runs inside a transaction that its caller opened.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from shelfwise.errors import DeskError
from shelfwise.roles import Layout
from shelfwise.service.databases import Session
from shelfwise.service.items import Filters, Item, Tally, shown_twice, to_json
from shelfwise.service.verdicts import COLUMNS, NOTHING, Verdict, standing
from shelfwise.taxonomy import Taxonomy

FORMAT = "1"
#: Verdicts are the truth; ``items.given`` and ``standing`` follow from them and are checked by ``astray``.
TABLES = (
    "CREATE TABLE IF NOT EXISTS desk (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS bundles (bundle TEXT PRIMARY KEY, place INTEGER NOT NULL, taxonomy TEXT NOT NULL, "
    "body TEXT NOT NULL, layout TEXT)",
    "CREATE TABLE IF NOT EXISTS items (item TEXT PRIMARY KEY, category TEXT NOT NULL, attribute TEXT NOT NULL, "
    "supplier TEXT NOT NULL, reason TEXT NOT NULL, cluster TEXT NOT NULL, risk DOUBLE PRECISION NOT NULL, "
    "wanted INTEGER NOT NULL, given INTEGER NOT NULL, bundle TEXT NOT NULL, body TEXT NOT NULL, holder TEXT, "
    "held DOUBLE PRECISION)",
    "CREATE INDEX IF NOT EXISTS items_open ON items (risk DESC, item) WHERE given < wanted",
    "CREATE INDEX IF NOT EXISTS items_held ON items (holder) WHERE holder IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS items_cluster ON items (cluster)",
    "CREATE TABLE IF NOT EXISTS verdicts (seq INTEGER PRIMARY KEY, item TEXT NOT NULL, reviewer TEXT NOT NULL, "
    "at TEXT NOT NULL, kind TEXT NOT NULL, before TEXT, after TEXT, model TEXT NOT NULL, taxonomy TEXT NOT NULL, "
    "token TEXT NOT NULL, undoes INTEGER UNIQUE, previous TEXT NOT NULL, hash TEXT NOT NULL)",
    "CREATE UNIQUE INDEX IF NOT EXISTS verdicts_token ON verdicts (reviewer, token, item)",
    "CREATE INDEX IF NOT EXISTS verdicts_item ON verdicts (item, reviewer)",
    "CREATE TABLE IF NOT EXISTS standing (item TEXT NOT NULL, reviewer TEXT NOT NULL, seq INTEGER NOT NULL, "
    "kind TEXT NOT NULL, PRIMARY KEY (item, reviewer))",
    "CREATE INDEX IF NOT EXISTS standing_reviewer ON standing (reviewer, seq)",
)
#: The columns that progress is counted by.
TALLIED = ("attribute", "category", "supplier", "reason")
_RECORD = ", ".join(COLUMNS)
_OF_RECORD = ", ".join(f"v.{name}" for name in COLUMNS)

_UPSERT = (
    "INSERT INTO items (item, category, attribute, supplier, reason, cluster, risk, wanted, given, bundle, body) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?) ON CONFLICT (item) DO UPDATE SET category = excluded.category, "
    "attribute = excluded.attribute, supplier = excluded.supplier, reason = excluded.reason, "
    "cluster = excluded.cluster, risk = excluded.risk, wanted = excluded.wanted, bundle = excluded.bundle, "
    "body = excluded.body WHERE NOT EXISTS (SELECT 1 FROM verdicts v WHERE v.item = items.item)"
)


def prepare(session: Session, place: str) -> None:
    """Make the tables where they are not there.

    Raises:
        DeskError: they are of another format.
    """
    for statement in TABLES:
        session.run(statement)
    session.run("INSERT INTO desk (name, value) VALUES ('format', ?) ON CONFLICT (name) DO NOTHING", FORMAT)
    found = session.rows("SELECT value FROM desk WHERE name = 'format'")[0][0]
    if found != FORMAT:
        raise DeskError(f"{place}: desk format {found!r} is not known (this version reads {FORMAT})")


def keep_bundle(session: Session, bundle: str, taxonomy: Taxonomy, layout: Layout | None) -> None:
    """Keep what a bundle's verdicts mean; it is the latest then, also where it was kept before."""
    body = json.dumps(taxonomy.table(), ensure_ascii=False)
    laid = None if layout is None else json.dumps(layout.table(), ensure_ascii=False)
    session.run(
        "INSERT INTO bundles (bundle, place, taxonomy, body, layout) "
        "VALUES (?, (SELECT COALESCE(MAX(place), -1) + 1 FROM bundles), ?, ?, ?) "
        "ON CONFLICT (bundle) DO UPDATE SET place = excluded.place, "
        "layout = COALESCE(excluded.layout, bundles.layout)",
        *(bundle, taxonomy.hash, body, laid),
    )


def put(session: Session, items: Iterable[Item], bundle: str, second: float) -> int:
    """Put items on the desk, or renew those without a verdict; return how many were not there before."""
    rows = [
        (
            item.key,
            item.category,
            item.attribute,
            item.supplier,
            item.reason,
            item.cluster,
            item.risk,
            1 + shown_twice(item.key, second),
            bundle,
            to_json(item),
        )
        for item in items
    ]
    before = session.rows("SELECT COUNT(*) FROM items")[0][0]
    session.many(_UPSERT, rows)
    return int(session.rows("SELECT COUNT(*) FROM items")[0][0] - before)


def kept_bundles(session: Session) -> tuple[tuple[str, Taxonomy, Layout | None], ...]:
    """Return what ``keep_bundle`` kept, in the order in which the bundles last came."""
    rows = session.rows("SELECT bundle, body, layout FROM bundles ORDER BY place")
    return tuple(
        (
            bundle,
            Taxonomy.from_table(json.loads(body), f"bundle {bundle}"),
            None if layout is None else Layout.from_table(json.loads(layout)),
        )
        for bundle, body, layout in rows
    )


def append(session: Session, draft: Verdict) -> Verdict:
    """Add a record to the chain, with its place, the hash before it and its own."""
    last = session.rows("SELECT seq, hash FROM verdicts ORDER BY seq DESC LIMIT 1")
    seq, previous = last[0] if last else (0, NOTHING)
    verdict = replace(draft, seq=seq + 1, previous=previous).sealed()
    marks = ", ".join("?" for _ in COLUMNS)
    session.run(f"INSERT INTO verdicts ({_RECORD}) VALUES ({marks})", *verdict.row())
    return verdict


def of_token(session: Session, reviewer: str, token: str | None) -> list[Verdict]:
    """Return the records of an act, in order; none without a token."""
    if token is None:
        return []
    statement = f"SELECT {_RECORD} FROM verdicts WHERE reviewer = ? AND token = ? ORDER BY seq"
    return [Verdict(*row) for row in session.rows(statement, reviewer, token)]


def of_item(session: Session, item: str, reviewer: str) -> Verdict | None:
    """Return a reviewer's verdict on an item that stands."""
    rows = session.rows(
        f"SELECT {_OF_RECORD} FROM verdicts v JOIN standing s ON s.seq = v.seq WHERE s.item = ? AND s.reviewer = ?",
        *(item, reviewer),
    )
    return Verdict(*rows[0]) if rows else None


def stand(session: Session, item: str, reviewer: str, verdict: Verdict | None) -> None:
    """Let a verdict stand for its reviewer, or none."""
    session.run("DELETE FROM standing WHERE item = ? AND reviewer = ?", item, reviewer)
    if verdict is not None:
        session.run(
            "INSERT INTO standing (item, reviewer, seq, kind) VALUES (?, ?, ?, ?)",
            *(item, reviewer, verdict.seq, verdict.kind),
        )
    session.run(
        "UPDATE items SET given = (SELECT COUNT(*) FROM standing s WHERE s.item = items.item AND s.kind <> 'skip') "
        "WHERE item = ?",
        item,
    )


def take_back(session: Session, reviewer: str, at: str, token: str) -> list[Verdict]:
    """Add a record for every verdict of the reviewer's last act that stands, and let the ones before stand again."""
    last = session.rows(
        "SELECT v.token FROM standing s JOIN verdicts v ON v.seq = s.seq WHERE s.reviewer = ? "
        "ORDER BY s.seq DESC LIMIT 1",
        reviewer,
    )
    if not last:
        return []
    records = []
    for verdict in of_token(session, reviewer, last[0][0]):
        draft = replace(verdict, reviewer=reviewer, at=at, kind="undo", token=token, undoes=verdict.seq)
        records.append(append(session, replace(draft, before=verdict.after, after=verdict.before)))
        earlier = session.rows(
            f"SELECT {_OF_RECORD} FROM verdicts v WHERE v.item = ? AND v.reviewer = ? AND v.kind <> 'undo' "
            "AND NOT EXISTS (SELECT 1 FROM verdicts u WHERE u.undoes = v.seq) ORDER BY v.seq DESC LIMIT 1",
            *(verdict.item, reviewer),
        )
        stand(session, verdict.item, reviewer, Verdict(*earlier[0]) if earlier else None)
    return records


def records(session: Session) -> list[Verdict]:
    """Return the whole chain."""
    return [Verdict(*row) for row in session.rows(f"SELECT {_RECORD} FROM verdicts ORDER BY seq")]


def all_standing(session: Session, item: str | None = None) -> dict[str, list[Verdict]]:
    """Return the verdicts that stand, skips aside, by item, the oldest first; of all items, or of one."""
    only, values = ("", ()) if item is None else (" AND s.item = ?", (item,))
    rows = session.rows(
        f"SELECT {_OF_RECORD} FROM verdicts v JOIN standing s ON s.seq = v.seq WHERE s.kind <> 'skip'{only} "
        "ORDER BY v.seq",
        *values,
    )
    found: dict[str, list[Verdict]] = {}
    for row in rows:
        verdict = Verdict(*row)
        found.setdefault(verdict.item, []).append(verdict)
    return found


def where(filters: Filters) -> tuple[str, list[Any]]:
    """Return conditions for what is filtered, and their values."""
    given = {
        "category": filters.category,
        "attribute": filters.attribute,
        "supplier": filters.supplier,
        "reason": filters.reason,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    return "".join(f" AND {name} = ?" for name in chosen), list(chosen.values())


def tallies(session: Session) -> dict[str, tuple[Tally, ...]]:
    """Return how many items are done and left, by column and value, most left first; ``""`` has all of them."""
    rows = session.rows(
        f"SELECT {', '.join(TALLIED)}, SUM(CASE WHEN given >= wanted THEN 1 ELSE 0 END), COUNT(*) FROM items "
        f"GROUP BY {', '.join(TALLIED)}"
    )
    found: dict[str, dict[str, tuple[int, int]]] = {name: {} for name in (*TALLIED, "")}
    for *values, done, count in rows:
        for column, value in zip((*TALLIED, ""), (*values, ""), strict=True):
            before = found[column].get(value, (0, 0))
            found[column][value] = before[0] + int(done), before[1] + int(count - done)
    return {
        column: tuple(
            sorted(
                (Tally(name, *two) for name, two in each.items()), key=lambda tally: (-tally.left, tally.name)
            )
        )
        for column, each in found.items()
    }


def astray(session: Session, chain: Iterable[Verdict]) -> list[str]:
    """Return where what the desk goes by does not follow from the chain, in sentences."""
    meant = {place: verdict.seq for place, verdict in standing(chain).items()}
    kept = {(item, name): seq for item, name, seq in session.rows("SELECT item, reviewer, seq FROM standing")}
    faults = [
        f"item {item} ({reviewer}): record {kept.get((item, reviewer))} stands on the desk, by the chain it is "
        f"{meant.get((item, reviewer))}"
        for item, reviewer in sorted(meant.keys() | kept.keys())
        if meant.get((item, reviewer)) != kept.get((item, reviewer))
    ]
    wrong = session.rows(
        "SELECT item FROM items WHERE given <> "
        "(SELECT COUNT(*) FROM standing s WHERE s.item = items.item AND s.kind <> 'skip') ORDER BY item"
    )
    return [*faults, *(f"item {item}: the number of its verdicts is not what stands" for (item,) in wrong)]
