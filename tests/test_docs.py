"""The documentation: links lead somewhere, code compiles, examples parse, every option and name is described."""

import json
import re
import shlex
import tomllib
import warnings
from pathlib import Path

import pytest

import shelfwise
from docs_blocks import logical_lines

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
RECORDS = [page for page in PAGES if re.match(r"\d{4}-", page.name)]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def blocks(page: Path, language: str) -> list[str]:
    return [body for found, body in FENCE.findall(page.read_text(encoding="utf-8")) if found == language]


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands() -> dict[str, set[str]]:
    """Every verb with its long options, those of its own verbs included."""
    import typer

    from shelfwise.cli import app

    group = typer.main.get_command(app)
    return {
        verb: {
            option
            for inner in getattr(command, "commands", {verb: command}).values()
            for parameter in inner.params
            for option in parameter.opts
            if option.startswith("--")
        }
        for verb, command in group.commands.items()  # type: ignore[attr-defined]
    }


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)}: {link}"
        assert target.is_relative_to(ROOT), f"{name(page)}: {link} leads out of the repository"
        if anchor:
            assert anchor in anchors(target), f"{name(page)}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_code_blocks_parse(page: Path) -> None:
    for body in blocks(page, "python"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            compile(body, name(page), "exec")
    for body in blocks(page, "toml"):
        tomllib.loads(body)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_blocks_use_public_names_only(page: Path) -> None:
    for body in blocks(page, "python"):
        for used in re.findall(r"\bsw\.(\w+)", body):
            assert used in shelfwise.__all__, f"{name(page)}: sw.{used}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_exist(page: Path) -> None:
    known = commands()
    for body in blocks(page, "sh"):
        for line in logical_lines(body):
            words = shlex.split(line)
            if Path(words[0]).name != "shelfwise":
                continue
            assert words[1] in known or words[1].startswith("-"), f"{name(page)}: {line}"
            for word in words[2:]:
                if word.startswith("--"):
                    assert word in known[words[1]], f"{name(page)}: {word} of {line}"


@pytest.mark.parametrize("path", EXAMPLES, ids=name)
def test_examples_are_run_files(path: Path) -> None:
    from shelfwise.config import make_recipe, read_run

    options = read_run(path)
    assert options.data.catalog.parent == path.parent
    assert make_recipe(options.recipe).name == options.recipe["name"]


def test_an_example_with_a_typo_fails(tmp_path: Path) -> None:
    from shelfwise.config import read_run
    from shelfwise.errors import ConfigError

    text = (ROOT / "examples" / "fashion.toml").read_text(encoding="utf-8")
    text = text.replace("components", "componets")
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="components"):
        read_run(tmp_path / "run.toml")


def test_every_verb_and_option_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    for verb, options in commands().items():
        assert re.search(rf"^\| `{verb}[ `]", text, re.MULTILINE), f"the verb {verb}"
        for option in options - {"--help"}:
            row = re.search(rf"^\| `{option}`.*?\|(.*?)\|", text, re.MULTILINE)
            assert row, f"{option} of {verb}"
            assert verb in re.findall(r"\w+", row.group(1)), (
                f"{option} is one of {verb}, the reference says of {row.group(1)}"
            )


def test_the_reference_has_no_options_that_do_not_exist() -> None:
    known = commands()
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    for option, of in re.findall(r"^\| `(--[\w-]+)`.*?\|(.*?)\|", text, re.MULTILINE):
        for verb in re.findall(r"\w+", of):
            assert option in known[verb], f"{verb} {option}"


def test_every_public_name_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    section = text[text.index("\n## Python") :]
    assert sorted(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == sorted(shelfwise.__all__)


def test_every_run_file_key_is_in_the_reference() -> None:
    from shelfwise.config import DataOptions, DecideOptions, SearchOptions, TrackOptions
    from shelfwise.recipes.neighbours import Neighbours
    from shelfwise.recipes.probe import Probe
    from shelfwise.recipes.treated import Treated
    from shelfwise.recipes.treatments import Treatments

    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    for prefix, model in (
        ("recipe", Treated),
        ("recipe.treat", Treatments),
        ("data", DataOptions),
        ("decide", DecideOptions),
        ("track", TrackOptions),
        ("search", SearchOptions),
        ("recipe", Probe),
        ("recipe", Neighbours),
    ):
        for key in model.model_fields:
            assert f"`{prefix}.{key}`" in text, f"{prefix}.{key}"


@pytest.mark.parametrize(("kind", "title"), [("backbone", "Backbones:"), ("heads", "Heads:")])
def test_registered_backbones_and_heads_are_in_the_reference(kind: str, title: str) -> None:
    from shelfwise.registry import REGISTRIES

    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    section = text[text.index(f"\n{title}\n") :]
    for entry in set(REGISTRIES[kind].names()) - {"toy"}:
        home = REGISTRIES[kind].get(entry).__module__
        if not home.startswith("shelfwise."):
            continue
        row = re.search(rf"^\|[^|]*`{entry}`[^|]*\|([^|]*)\|", section, re.MULTILINE)
        assert row, f"{kind} {entry}"
        stated = re.findall(r"`(\w+)`", row.group(1))
        missing = [option for option in REGISTRIES[kind].options(entry) if option not in stated]
        assert not missing, f"{kind} {entry}: {missing}"


def test_defaults_in_the_reference_are_the_defaults() -> None:
    from shelfwise.config import filled
    from shelfwise.recipes.neighbours import Neighbours
    from shelfwise.recipes.probe import Probe

    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    for recipe in (Probe(), Neighbours()):
        section = text[text.index(f'Options of `recipe.name = "{recipe.name}"`') :]
        for key, value in recipe:
            found = re.search(rf"^\| `recipe\.{key}` \| `?(.*?)`? \|", section, re.MULTILINE)
            assert found, f"{recipe.name}: {key}"
            if key in ("backbone", "text_encoder"):
                stated = tomllib.loads(f"x = {found.group(1)}")["x"]
                assert stated.items() <= filled(value).items(), f"{recipe.name}: {found.group(1)}"
            else:
                shown = json.dumps(value) if isinstance(value, bool | tuple) else str(value)
                assert found.group(1) == shown, f"{recipe.name}: {key} is {shown}"


def test_every_kind_of_finding_is_described() -> None:
    text = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    from shelfwise.errors import IMAGE_ERROR_KINDS

    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src" / "shelfwise").rglob("*.py"))
    kinds = set(re.findall(r'Finding\(\s*"(\w+)"', source)) | {f"image_{kind}" for kind in IMAGE_ERROR_KINDS}
    assert len(kinds) > 20
    assert [kind for kind in sorted(kinds) if f"`{kind}`" not in text] == []


@pytest.mark.parametrize("page", RECORDS, ids=name)
def test_design_records_say_what_was_rejected(page: Path) -> None:
    titles = re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert titles == ["Context", "Decision", "Rejected", "Consequences"]
    index = (page.parent / "index.md").read_text(encoding="utf-8")
    assert f"({page.name})" in index


def test_there_are_design_records() -> None:
    assert [page.name[:4] for page in RECORDS] == [f"{k:04d}" for k in range(1, len(RECORDS) + 1)]
    assert len(RECORDS) >= 13
