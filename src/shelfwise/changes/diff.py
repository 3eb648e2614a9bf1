"""Diff: which names of two taxonomies are the same thing.

It knows no tables and no models. A name is taken for another only where a taxonomy states the alias or a
person declared it (``renames``); what merely looks alike is proposed, with the way to declare it.
"""

import difflib
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shelfwise.changes.change import KINDS, AttributeMap, CategoryMap, Change, Changes, grouped
from shelfwise.changes.renames import Key, Renames, check_renames
from shelfwise.errors import listing
from shelfwise.taxonomy import Attribute, Choice, Number, Taxonomy

#: Where the new names came from: a person, or an alias that one of the taxonomies states.
DECLARED, ALIAS = "declared", "alias"
#: Two names this similar (Ratcliff-Obershelp) are proposed as one.
NEAR = 0.75


def diff(old: Taxonomy, new: Taxonomy, renames: Renames | Mapping[str, Any] | None = None) -> Changes:
    """Compare two taxonomies.

    A name that both have is the same thing, unless declared otherwise. Another one is matched where
    ``renames`` declares it, or where one of the taxonomies states it as an alias. What is left of the old
    names is retired, what is left of the new ones is added; nothing is guessed.

    Args:
        old: the taxonomy before.
        new: the taxonomy after.
        renames: what was renamed, merged, split or retired on purpose; as nested tables, see
            ``Renames.from_table``: ``{"values": {"colour": {"red": "crimson"}}}``.

    Raises:
        TaxonomyError: a declaration about a name that is not there; all of them in one message.
    """
    declared = renames if isinstance(renames, Renames) else Renames.from_table(renames or {})
    return _Comparison(old, new, declared).changes()


Targets = Mapping[str, tuple[tuple[str, ...], str]]


class _Comparison:
    """The state of one comparison: which declarations were used, and what is wrong with them."""

    def __init__(self, old: Taxonomy, new: Taxonomy, renames: Renames) -> None:
        self.old, self.new, self.renames = old, new, renames
        self.used: set[Key] = set()
        self.problems: list[str] = []
        self.items: list[Change] = []
        self.split: dict[tuple[str, str], tuple[str, ...]] = {}

    def changes(self) -> Changes:
        old, new = self.old, self.new
        targets = self.match(old.categories, new.categories, (), {})
        self.report("category", "", "", targets, new.categories)
        maps = []
        attributes: dict[tuple[str, str], Targets] = {}
        for category in old.categories:
            for other in targets[category][0]:
                item, found = self.category(category, other)
                maps.append(item)
                attributes[category, other] = found
        by_new = grouped(maps, lambda item: item.new)
        for category in new.categories:
            self.inside(category, by_new.get(category, ()), attributes)
        self.retired_inside(maps, attributes)
        unused = [key for key in self.renames.entries if key not in self.used]
        known = {key for key in unused if not Renames({key: ()}).unknown(old)}
        for key in sorted(known, key=str):
            names = "/".join(part for part in key if part is not None)
            self.problems.append(
                f"{names}: the new taxonomy has no {listing(self.renames.entries[key])} there"
                if self.renames.entries[key]
                else f"{names}: is not where the new taxonomy has a place for it"
            )
        check_renames(self.renames, old, dict.fromkeys(self.problems))
        order = {name: at for at, name in enumerate(new.categories)}
        for item in maps:
            order.setdefault(item.old, order[item.new])
        first = [c for c in self.items if c.level == "category"]
        rest = [c for c in self.items if c.level != "category"]
        rest.sort(key=lambda c: (order[c.category], c.attribute, KINDS.index(c.kind), c.old, c.new))
        return Changes(old, new, (*first, *dict.fromkeys(rest)), tuple(maps), self.split)

    def match(
        self, old: Sequence[str], new: Sequence[str], scope: tuple[str, ...], aliases: Mapping[str, str]
    ) -> Targets:
        """Every old name with its new names, and why they were taken for it."""
        there, found = set(new), {}
        for name in old:
            declared = self.renames.find(*scope, name)
            if declared is not None and set(declared[1]) <= there:
                self.used.add(declared[0])
                found[name] = declared[1], DECLARED
            elif name in there:
                found[name] = (name,), ""
            elif aliases.get(name) in there:
                found[name] = (aliases[name],), ALIAS
            else:
                found[name] = (), ""
        return found

    def category(self, old: str, new: str) -> tuple[CategoryMap, Targets]:
        """The attributes and values of an old category in a new one."""
        aliases = {**_reversed(self.old.aliases, _names(self.new.entries[new])), **self.new.aliases}
        found: dict[str, tuple[tuple[str, ...], str]] = {}
        for kind in (Choice, Number):
            before, after = _names(self.old.entries[old], kind), _names(self.new.entries[new], kind)
            found |= self.match(before, after, (old,), aliases)
        maps = []
        for choice in self.old.choices(old):
            into = found[choice.name][0]
            if len(into) > 1:
                self.split[old, choice.name] = into
            elif into:
                after_choice = self.new.choice(new, into[0])
                spellings = {**_reversed(choice.aliases, after_choice.values), **after_choice.aliases}
                values = self.match(choice.values, after_choice.values, (old, choice.name), spellings)
                targets = {name: names for name, (names, _) in values.items()}
                maps.append(AttributeMap(choice.name, into[0], targets))
                self.report("value", new, into[0], values, None)
        numbers = {n.name: found[n.name][0][0] for n in self.old.numbers(old) if len(found[n.name][0]) == 1}
        self.report("attribute", new, "", found, None)
        return CategoryMap(old, new, tuple(maps), numbers), found

    def report(
        self, level: str, category: str, attribute: str, targets: Targets, new: Sequence[str] | None
    ) -> None:
        """Add renamed, merged and split names; given all new names, added and retired ones too."""
        sources: dict[str, list[str]] = defaultdict(list)
        for name, (names, why) in targets.items():
            if len(names) > 1:
                self.add("split", level, category, attribute, (name,), names, why)
            for one in names if len(names) == 1 else ():
                sources[one].append(name)
        for one, names_before in sources.items():
            why = " and ".join(sorted({targets[n][1] for n in names_before} - {""}))
            if len(names_before) > 1:
                self.add("merged", level, category, attribute, tuple(names_before), (one,), why)
            elif names_before != [one]:
                self.add("renamed", level, category, attribute, tuple(names_before), (one,), why)
        if new is not None:
            reached = {name for names, _ in targets.values() for name in names}
            added = [name for name in new if name not in reached]
            gone = [(name, why) for name, (names, why) in targets.items() if not names]
            for name in added:
                self.add("added", level, category, attribute, (), (name,))
            for name, why in gone:
                hint = "" if why else _suggestion((name,), name, [n for n, w in gone if not w], added)
                self.add("retired", level, category, attribute, (name,), (), why, hint)

    def add(
        self,
        kind: str,
        level: str,
        category: str,
        attribute: str,
        old: tuple[str, ...],
        new: tuple[str, ...],
        why: str = "",
        hint: str = "",
    ) -> None:
        """Add a change; at the levels category and attribute its own name says where."""
        own = (new or old)[0]
        where = own if level == "category" else category
        inside = own if level == "attribute" else attribute
        self.items.append(Change(kind, level, where, inside, old, new, why, hint))

    def inside(
        self, category: str, origins: Sequence[CategoryMap], found: Mapping[tuple[str, str], Targets]
    ) -> None:
        """Add the attributes and values of a new category that nothing old became."""
        if not origins:
            return
        reached = {n for o in origins for names, _ in found[o.old, category].values() for n in names}
        for attribute in self.new.entries[category]:
            if attribute.name not in reached:
                self.add("added", "attribute", category, "", (), (attribute.name,))
            elif isinstance(attribute, Choice):
                maps = [item for o in origins for item in o.into(attribute.name)]
                if maps:
                    known = frozenset[str]().union(*(item.reached for item in maps))
                    new = tuple(v for v in attribute.values if v not in known)
                    if new:
                        self.add("added", "value", category, attribute.name, (), new)

    def retired_inside(self, maps: Sequence[CategoryMap], found: Mapping[tuple[str, str], Targets]) -> None:
        """Add the attributes and values of old categories that went nowhere, with what they may have become."""
        added = {
            (c.category, c.attribute): c.new for c in self.items if (c.kind, c.level) == ("added", "value")
        }
        fresh: dict[str, list[str]] = defaultdict(list)
        for c in self.items:
            if (c.kind, c.level) == ("added", "attribute"):
                fresh[c.category] += c.new
        for category, onward in grouped(maps, lambda item: item.old).items():
            into = [found[category, item.new] for item in onward]
            lost = [name for name in into[0] if not any(each[name][0] for each in into)]
            open_ = [name for name in lost if not any(each[name][1] for each in into)]
            for name in lost:
                options = [n for item in onward for n in fresh[item.new]]
                hint = _suggestion((category, name), name, open_, options) if name in open_ else ""
                why = "" if name in open_ else DECLARED
                self.add("retired", "attribute", category, "", (name,), (), why, hint)
            for choice in self.old.choices(category):
                kept = [(m, o.new) for o in onward for m in o.attributes if m.old == choice.name]
                gone = [v for v in choice.values if kept and not any(m.targets[v] for m, _ in kept)]
                options = [n for m, new in kept for n in added.get((new, m.new), ())]
                free = [v for v in gone if self.renames.find(category, choice.name, v) is None]
                for value in gone:
                    path = (category, choice.name, value)
                    hint = _suggestion(path, value, free, options) if value in free else ""
                    why = "" if value in free else DECLARED
                    self.add("retired", "value", category, choice.name, (value,), (), why, hint)


def _names(attributes: Sequence[Attribute], kind: type | tuple[type, ...] = (Choice, Number)) -> list[str]:
    return [item.name for item in attributes if isinstance(item, kind)]


def _reversed(aliases: Mapping[str, str], there: Iterable[str]) -> dict[str, str]:
    """A name to the other spelling of it that is there now: what the old taxonomy itself calls the same."""
    known = set(there)
    return {name: spelling for spelling, name in sorted(aliases.items()) if spelling in known}


def _suggestion(path: Sequence[str], name: str, gone: Sequence[str], added: Sequence[str]) -> str:
    """What a retired name may have become, and how to declare it; empty where nothing suggests itself."""
    options = {option.strip().casefold(): option for option in added}
    near = difflib.get_close_matches(name.strip().casefold(), options, n=1, cutoff=NEAR)
    if near:
        other, reason = options[near[0]], "is spelt much like it"
    elif len(gone) == len(added) == 1:
        other, reason = added[0], "is the one new name beside the one that is gone"
    else:
        return ""
    return (
        f"  {'/'.join(path)} is retired; {other!r} {reason}. If it is the same, declare it: "
        f"--rename {shlex.quote('/'.join(path) + '=' + other)}"
    )
