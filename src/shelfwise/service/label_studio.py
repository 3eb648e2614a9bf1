"""Label Studio: the items of a desk as its tasks, and annotations made there as verdicts.

It knows the JSON of Label Studio (https://labelstud.io/guide/task_format), not its server. The choices differ from
task to task, so they travel with it; ``CONFIG`` is the labelling configuration that shows them. A number has no choices
but the one stated and the one that would fit; any other is typed on the review pages.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shelfwise.errors import DeskError
from shelfwise.files import write_text
from shelfwise.service.desk import Desk
from shelfwise.service.items import Item, value_after
from shelfwise.service.verdicts import Kind, Verdict

#: Paste it into a project's labelling interface.
CONFIG = """<View>
  <Header value="$question"/>
  <Image name="image" value="$image" zoom="true"/>
  <Choices name="value" toName="image" choice="single-radio" value="$options"/>
</View>
"""
NOT_APPLICABLE, NOT_VISIBLE = "(not applicable)", "(not visible)"
_WORDS: Mapping[str, Kind] = {NOT_APPLICABLE: "not_applicable", NOT_VISIBLE: "not_visible"}
#: Problems that a message names.
NAMED = 5


def tasks(desk: Desk, *, photos: str = "") -> list[dict[str, Any]]:
    """Return every item as a task, the riskiest first: what was seen as a prediction, what stands as annotations.

    Args:
        desk: the desk.
        photos: an address that the pictures' file names are put behind; without it their paths are written.
    """
    said = desk.outcomes()
    models = {verdict.item: verdict.model for verdicts in said.values() for verdict in verdicts}
    bundles = desk.bundles()
    latest = bundles[-1][0] if bundles else ""
    found = []
    for item in desk.items():
        shown = "" if item.photo is None else f"{photos}{item.photo.name}" if photos else str(item.photo)
        values = (item.stated, item.seen) if item.number else item.values
        options = [*filter(None, values), *([NOT_APPLICABLE] if item.attribute else []), NOT_VISIBLE]
        question = f"{item.category}: {item.attribute or 'category'}"
        data = {
            "key": item.key,
            "image": shown,
            "question": f"{question} (stated {item.stated})" if item.stated is not None else question,
            "options": [{"value": option} for option in options],
            **{
                name: getattr(item, name)
                for name in ("id", "category", "attribute", "supplier", "stated", "seen")
            },
            "reason": item.reason,
            "risk": round(item.risk, 6),
        }
        predictions = []
        if item.seen is not None:
            model = models.get(item.key, latest)[:12]
            predictions.append(
                {"model_version": model, "score": item.probability, "result": [_choice(item.seen)]}
            )
        annotations = [_annotation(item, verdict) for verdict in said.get(item.key, ())]
        found.append({"data": data, "predictions": predictions, "annotations": annotations})
    return found


def write_tasks(desk: Desk, path: Path, *, photos: str = "") -> int:
    """Write the tasks as JSON, and beside it the labelling configuration, ``<stem>.xml``; return how many.

    Args:
        desk: the desk.
        path: where.
        photos: as in ``tasks``.
    """
    found = tasks(desk, photos=photos)
    write_text(path, json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    write_text(path.with_suffix(".xml"), CONFIG)
    return len(found)


def _choice(value: str) -> dict[str, Any]:
    return {"from_name": "value", "to_name": "image", "type": "choices", "value": {"choices": [value]}}


def _annotation(item: Item, verdict: Verdict) -> dict[str, Any]:
    words = {kind: word for word, kind in _WORDS.items()}
    value = words.get(verdict.kind) or verdict.after or item.stated or ""
    return {
        "result": [_choice(value)],
        "was_cancelled": False,
        "created_at": verdict.at,
        "created_username": verdict.reviewer,
    }


@dataclass(frozen=True)
class _Said:
    """One annotation, as what a reviewer says."""

    reviewer: str
    item: Item
    kind: Kind
    value: str | None
    token: str


def read_tasks(desk: Desk, path: Path, *, reviewer: str = "") -> tuple[Verdict, ...]:
    """Record the annotations of a Label Studio export; what the desk has already is not recorded again.

    Args:
        desk: the desk that the tasks came from.
        path: the JSON file.
        reviewer: who annotated, where the file does not say.

    Returns:
        The verdicts that are new.

    Raises:
        DeskError: not such a file, or annotations that cannot be taken; nothing is recorded then.
    """
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DeskError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(given, list):
        raise DeskError(f"{path}: holds no list of tasks; export as JSON, not as JSON-MIN")
    items = {item.key: item for item in desk.items()}
    said: list[_Said] = []
    problems: list[str] = []
    for number, task in enumerate(given, start=1):
        try:
            said += _read(task, items, reviewer)
        except DeskError as error:
            problems.append(f"task {number}: {error}")
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            problems.append(f"task {number}: not as exported, {type(error).__name__} at {error}")
    if problems:
        rest = f"\n... and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        raise DeskError(f"{path}: nothing was recorded:\n" + "\n".join(problems[:NAMED]) + rest)
    stands = {(each.item, each.reviewer): each for verdicts in desk.outcomes().values() for each in verdicts}
    before, found = {verdict.hash for verdict in desk.verdicts()}, []
    for one in said:
        there = stands.get((one.item.key, one.reviewer))
        says = _outcome(one.kind, value_after(one.item, one.kind, one.value))
        if there is None or _outcome(there.kind, there.after) != says:
            found.append(desk.decide(one.reviewer, one.item.key, one.kind, one.value, token=one.token))
    return tuple(verdict for verdict in found if verdict.hash not in before)


def _outcome(kind: Kind, after: str | None) -> tuple[str, str | None]:
    return (kind, None) if kind in _WORDS.values() else ("value", after)


def _read(task: Mapping[str, Any], items: Mapping[str, Item], reviewer: str) -> Iterator[_Said]:
    """Yield what the annotations of one task say."""
    annotations = [
        each for each in task.get("annotations") or () if each.get("result") or each.get("was_cancelled")
    ]
    if not annotations:
        return
    key = str(task["data"]["key"])
    if key not in items:
        raise DeskError(f"the item {key!r} is not on this desk")
    item = items[key]
    for annotation in annotations:
        who = _reviewer(annotation) or reviewer
        if not who:
            raise DeskError(f"item {key}: does not say who annotated it; name a reviewer (--reviewer)")
        cancelled = bool(annotation.get("was_cancelled"))
        chosen = "" if cancelled else str(_chosen(annotation["result"]))
        kind = "skip" if cancelled else _WORDS.get(chosen) or ("accept" if chosen == item.seen else "correct")
        value = chosen if kind == "correct" else None
        value_after(item, kind, value)
        named = [annotation.get("id"), annotation.get("updated_at"), key, kind, value]
        token = hashlib.sha256(json.dumps(named, ensure_ascii=False).encode()).hexdigest()[:32]
        yield _Said(who, item, kind, value, f"label-studio-{token}")


def _chosen(result: list[Mapping[str, Any]]) -> str:
    """Return the one choice of an annotation."""
    choices = [value for each in result if each["from_name"] == "value" for value in each["value"]["choices"]]
    if len(choices) != 1:
        raise DeskError(f"an annotation holds {len(choices)} choices, not one")
    return str(choices[0])


def _reviewer(annotation: Mapping[str, Any]) -> str:
    """Return who made an annotation: the mail address, or the name or number that the server gave."""
    who = annotation.get("completed_by")
    mail = who.get("email") if isinstance(who, Mapping) else None
    number = who.get("id") if isinstance(who, Mapping) else who
    return str(mail or annotation.get("created_username") or ("" if number is None else number)).strip()
