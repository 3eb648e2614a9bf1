"""Run files: every problem at once, near misses, overrides, and TOML that reads back equal."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shelfwise as sw
from shelfwise.bundle import run_table
from shelfwise.config import make_recipe, override, read_run, run_options, to_toml
from shelfwise.errors import ConfigError


def run_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_problem_in_one_message(tmp_path: Path):
    path = run_file(
        tmp_path,
        """
seed = -1
sead = 3
[data]
catalg = "t.csv"
evidence = 1
[recipe]
name = "probe"
clas_weight = 1
components = "many"
backbone = { name = "lite9" }
[decide]
metric = "harmonic"
precision = 98
over = "everything"
alarm = -1
""",
    )
    with pytest.raises(ConfigError) as caught:
        read_run(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    for part in (
        "sead: unknown key. Did you mean 'seed'?",
        "seed: ",
        "data.catalg: unknown key. Did you mean 'catalog'?",
        "data.catalog: is missing",
        "data.evidence",
        "recipe.clas_weight: unknown key. Did you mean 'class_weight'?",
        "recipe.components",
        "recipe.backbone: there is no backbone called 'lite9'",
        "decide.metric",
        "decide.precision",
        "decide.over",
        "decide.alarm",
    ):
        assert part in message, part
    assert int(message.split(": ")[1].split(" problem")[0]) == len(message.splitlines()) - 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "prob"}, r"no recipe called 'prob'\. Did you mean 'probe'\?"),
        ({"l2": 1}, "recipe.name: is missing"),
        (
            {"name": "parts", "choices": {"name": "probe"}, "numbers": {"name": "boost"}, "components": 64},
            r"recipe\.components: unknown key\. There is recipe\.choices\.components",
        ),
        (
            {"name": "probe", "backbone": {"name": "lite0", "sise": 3}},
            r"no option 'sise'\. Did you mean 'size'\?",
        ),
        ({"name": "probe", "backbone": {"name": "timm", "model": "x"}}, "needs the option 'weights'"),
        ({"name": "probe", "backbone": 3}, "a backbone is a name or a table with a name"),
        ({"name": "probe", "backbone": sw.loss("focal")}, "needs a backbone, not the loss 'focal'"),
        ({"name": "neighbours", "by": "guess"}, "recipe.by"),
        ({"name": "neighbours", "k": 0}, "recipe.k"),
    ],
)
def test_wrong_recipes(table: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        make_recipe(table)


def test_a_file_that_cannot_be_read(tmp_path: Path):
    for path in (tmp_path / "none.toml", run_file(tmp_path, "a = = 1"), tmp_path):
        with pytest.raises(ConfigError, match="cannot read the run file"):
            read_run(path)


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path):
    text = '[data]\ncatalog = "t.csv"\nimages = "/photos"\nattributes = "../list.json"\n'
    costs = read_run(run_file(tmp_path, text + '[decide]\ncost = "costs.csv"\n')).decide.cost
    assert costs == tmp_path / "costs.csv"
    data = read_run(run_file(tmp_path, text)).data
    assert data.catalog == tmp_path / "t.csv"
    assert data.images == Path("/photos")
    assert data.attributes == tmp_path / "../list.json"
    data = read_run(run_file(tmp_path, text), ["data.catalog=here.csv"]).data
    assert data.catalog == Path("here.csv")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=1", 1),
        ("a.b=1.5", 1.5),
        ("a.b=true", True),
        ('a.b="1"', "1"),
        ("a.b=[1, 'x']", [1, "x"]),
        ("a.b={ c = 1 }", {"c": 1}),
        ("a.b=/a/b.csv", "/a/b.csv"),
        ("a.b=lite0", "lite0"),
        ("a.b=x=y", "x=y"),
        ("a.b=", ""),
        ("a.b=2024-01-01x", "2024-01-01x"),
    ],
)
def test_overrides_are_literals_or_strings(text: str, value: object):
    assert override({}, [text]) == {"a": {"b": value}}


def test_overrides_reach_options_and_are_checked(tmp_path: Path):
    path = run_file(tmp_path, '[data]\ncatalog = "t.csv"\n[recipe]\nname = "probe"\nbackbone = "lite0"\n')
    options = read_run(path, ["seed=7", "recipe.l2=0.5", "data.evidence=0.2", "recipe.backbone=lite1"])
    assert (options.seed, options.data.evidence) == (7, 0.2)
    assert make_recipe(options.recipe) == sw.Probe(backbone=sw.backbone("lite1"), l2=0.5)
    for text, message in (
        ("recipe.l2", "an override is key=value"),
        ("=3", "an override is key=value"),
        ("seed.x=3", "seed"),
        ("recipe.backbone.size=3", "give it as a table"),
        ("recipe.l2=-1", "recipe.l2"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_run(path, [*(["seed=1"] if text.startswith("seed.") else []), text])


scalars = (
    st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
)
keys = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6)
tables = st.recursive(
    st.dictionaries(keys, scalars | st.lists(scalars, max_size=3), max_size=4),
    lambda inner: st.dictionaries(keys, scalars | inner, max_size=4),
    max_leaves=12,
)


def without_empty_tables(table: object) -> object:
    if not isinstance(table, dict):
        return table
    inner = {key: without_empty_tables(value) for key, value in table.items()}
    return {key: value for key, value in inner.items() if value != {}}


@given(tables)
@settings(max_examples=150, deadline=None)
def test_toml_reads_back_equal(table: dict[str, object]):
    assert without_empty_tables(tomllib.loads(to_toml(table))) == without_empty_tables(table)


def test_a_whole_run_is_written_back_equal(tmp_path: Path):
    options = run_options(
        {
            "seed": 3,
            "data": {
                "catalog": "ä b.csv",
                "images": 'p"h',
                "evidence": 0.1,
                "missing": ["", "NaN"],
                "not_applicable": ["n/a", "none"],
                "aliases": {"the colour": {"Black ": "Black", "1.5": "x"}},
                "attribute_aliases": {"occasion": "ocassion"},
                "text": ["note"],
            },
            "recipe": {"name": "probe", "backbone": {"name": "lite0", "levels": "all"}},
            "decide": {
                "metric": "macro_f1",
                "cost": "c.csv",
                "precision": 0.98,
                "over": "catalogue",
                "alarm": 0,
            },
        },
        "test",
    )
    text = to_toml(run_table(options))
    again = run_options(tomllib.loads(text), "again")
    assert again.data == options.data
    assert again.decide == options.decide
    assert make_recipe(again.recipe) == make_recipe(options.recipe)
    assert to_toml(run_table(again)) == text
    assert "class_weight = 0.75" in text, "defaults are written out"


@pytest.mark.parametrize(
    "recipe",
    [
        sw.Probe(),
        sw.Probe(backbone=sw.backbone("timm", model="resnet18", weights=False), l2=0.3),
        sw.Neighbours(),
        sw.Neighbours(by="hash", k=3),
    ],
    ids=str,
)
def test_recipes_are_values(recipe: sw.Probe | sw.Neighbours):
    assert make_recipe(recipe.table()) == recipe
    assert make_recipe(tomllib.loads(to_toml(recipe.table()))) == recipe
    assert hash(make_recipe(recipe.table())) == hash(recipe)


def test_the_kinds_of_value_an_option_may_have_are_one_problem() -> None:
    phases = [{"epochs": 2, "lr": "fast", "train": "headz"}]
    with pytest.raises(ConfigError) as caught:
        run_options(
            {"data": {"catalog": "x.csv"}, "recipe": {"name": "finetune", "phases": phases}}, "run.toml"
        )
    lines = str(caught.value).splitlines()
    assert lines[0] == "run.toml: 2 problems"
    assert lines[1].startswith("  recipe.phases.0.train: ")
    assert lines[1].endswith("(got 'headz')")
    assert lines[2].startswith("  recipe.phases.0.lr: ")
    assert "; or: " in lines[2]
