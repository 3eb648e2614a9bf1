"""The shape of the code: import layers, quick imports, names, sizes, and what may not be written."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import shelfwise

SOURCE = Path(shelfwise.__file__).parent

#: Every module and its layer; a module imports only from smaller numbers, or from its own where not a sibling.
LAYERS = {
    0: "errors registry files journal progress drawings drawings.fabrics drawings.garments "
    "drawings.regions drawings.sarees "
    "drawings.stages",
    1: "taxonomy tables roles layouts locate photos cells splits catalog single amounts answers packed segments "
    "predictions findings config "
    "tomltext spaces manifest",
    2: "batch batch.shards plaintext simplex_search metrics align report comparison drift drift.report "
    "changes changes.change "
    "changes.renames changes.diff "
    "changes.relayout changes.affected changes.recode "
    "data data.images data.headers data.colour data.store data.facts data.group data.clean data.outliers data.alike "
    "data.small data.background data.bad_photos data.units data.quantities data.prices_in_text data.brands data.text "
    "data.unit_prices "
    "data.pixels data.terms data.addresses data.messages data.wire data.stores data.turns data.ledger "
    "data.wanted data.fetching data.download",
    3: "models models.backbones models.towers models.weights models.clip_tower models.engines models.runners "
    "models.parity models.exported models.convert models.plain_nearest models.halves models.embed models.remembered "
    "models.heads models.losses models.nearest models.approximate models.solver "
    "models.attention_heads models.squeeze_excitation models.shared_heads models.network models.batchnorm "
    "models.lora models.timm_tower models.transformers_tower "
    "models.text_encoders models.text_towers models.tfidf models.sentence_tower models.clip_text_tower "
    "models.pair models.pair_tower models.number_heads models.number_losses "
    "models.distil models.mmd models.adversary data.augment data.draws data.spoil data.mixing data.warp data.beside "
    "data.batches "
    "models.torchvision_repair models.chat models.vision_language models.vision_tuning shelves rendering drawn_regions "
    "trust trust.evidence trust.calibrate trust.decide trust.promise trust.costs trust.audit trust.suspects "
    "trust.noise trust.learnt trust.ranges trust.worth trust.points trust.amount_rule trust.mispriced "
    "trust.shift trust.permuted trust.claims trust.lexicon trust.sequences trust.wording trust.spelt",
    4: "train train.memory train.optim train.anatomy train.best train.gradients train.checkpoint train.events "
    "train.place train.course train.run train.loop train.track",
    5: "crossfit recipes.simplex recipes.sides recipes.blend recipes.stacking recipes.gate recipes.held "
    "recipes.ensemble recipes.several recipes.cascade recipes.frontier "
    "recipes.vqa recipes.vqa_predictor recipes.vqa_remote recipes.vqa_local recipes.questions recipes.replies "
    "recipes.spread recipes.recall recipes.conversations "
    "recipes recipes.features recipes.routing recipes.votes recipes.weights recipes.probe "
    "recipes.probe_predictor recipes.experts recipes.rowwise recipes.shared recipes.space "
    "recipes.texts recipes.value_names "
    "recipes.neighbours recipes.remapped recipes.index recipes.oddness recipes.treatments recipes.treated "
    "recipes.finetune recipes.training recipes.training_run recipes.tuned recipes.tuned_network recipes.head_start "
    "recipes.words recipes.looking recipes.products recipes.scoring "
    "recipes.boost recipes.boost_files recipes.boost_choices recipes.number_model recipes.estimates recipes.siblings "
    "recipes.trees recipes.views "
    "recipes.saliency recipes.teacher recipes.sources recipes.parts recipes.number_blend",
    6: "evaluate evaluate_amounts photo_gain agreement describe",
    7: "bundle card pages pages.parts pages.svg pages.curves pages.charts pages.certainty pages.scores "
    "pages.heat pages.numbers pages.number_charts pages.prices pages.stock pages.gallery pages.differences "
    "pages.run pages.drift speed",
    8: "batch.run batch.jobs batch.crews batch.carried batch.answering batch.log batch.assembled fit "
    "drift.compared drift.lines drift.fingerprint expect "
    "gathering advice unseen scored start migrate auditing explaining blending trials search export choosing",
    9: "demo toys testing head_contract text_contract number_loss_contract "
    "client service.keys service.limits service.pace service.options service.problems service.access "
    "service.metrics service.logs "
    "service.front service.batcher service.products service.serving service.schemas service.forms "
    "service.intake service.remote "
    "service.asking service.openapi service.app service.run "
    "service service.verdicts service.items service.databases service.ledger service.desk "
    "service.lookalikes service.doubts service.labels service.label_studio "
    "service.review service.review_guard service.review_view",
    10: "cli cli.options cli.amounts cli.learn cli.answer cli.score cli.inspect cli.audit cli.search cli.taxonomy "
    "cli.vqa cli.blend cli.drift cli.download cli.export cli.serve cli.labels cli.__main__",
}
LAYER = {name: layer for layer, names in LAYERS.items() for name in names.split()}
#: Two branches of layer 2 that know nothing of each other.
SCORES = ("metrics", "align", "report", "comparison")
HEAVY = (
    "torch",
    "torchvision",
    "sklearn",
    "openvino",
    "timm",
    "open_clip",
    "polars",
    "pyarrow",
    "scipy",
    "matplotlib",
)
#: The registry names the modules that register, as text; the package's own file is lazy.
LOOSE = ("__init__",)


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = path
    return found


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imported(node: ast.AST) -> set[str]:
    """Modules of this package that run-time code imports, inside functions too."""
    found: set[str] = set()
    for child in ast.iter_child_nodes(node):
        if only_for_types(child):
            found |= imported(ast.Module(child.orelse, []))  # type: ignore[attr-defined]
        elif isinstance(child, ast.Import):
            found |= {alias.name for alias in child.names if alias.name.split(".")[0] == "shelfwise"}
        elif isinstance(child, ast.ImportFrom):
            assert not child.level, f"relative import: {ast.unparse(child)}"
            if child.module and child.module.split(".")[0] == "shelfwise":
                inner = {f"{child.module}.{alias.name}" for alias in child.names}
                known = {name for name in inner if name.removeprefix("shelfwise.") in LAYER}
                found |= known or {child.module}
        else:
            found |= imported(child)
    return {name.removeprefix("shelfwise.") for name in found}


def raises_again(node: ast.ExceptHandler) -> bool:
    """Whether a handler lets nothing pass: it ends by raising what it caught."""
    last = node.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def test_every_module_has_a_layer():
    there = set(modules()) - set(LOOSE)
    assert there - set(LAYER) == set(), "new modules: give them a layer in this table"
    assert set(LAYER) - there == set(), "modules that are gone: take them out of this table"


def test_modules_import_downwards_only():
    wrong = []
    for name, path in modules().items():
        if name in LOOSE:
            continue
        for other in sorted(imported(ast.parse(path.read_text(encoding="utf-8")))):
            if other == "shelfwise" and name in ("demo", "testing"):
                continue
            if LAYER.get(other, 99) > LAYER[name]:
                wrong.append(f"{name} ({LAYER[name]}) imports {other} ({LAYER.get(other, 'no module')})")
    assert not wrong, "\n".join(wrong)


def test_scores_and_data_do_not_know_each_other():
    wrong = []
    for name, path in modules().items():
        others = imported(ast.parse(path.read_text(encoding="utf-8")))
        if name in SCORES:
            wrong += [f"{name} imports {other}" for other in others if other.split(".")[0] == "data"]
        if name.split(".")[0] == "data":
            wrong += [f"{name} imports {other}" for other in others if other in SCORES]
    assert not wrong, "\n".join(wrong)


def test_the_walk_sees_imports_inside_functions_and_not_those_for_types():
    code = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from shelfwise.bundle import Bundle
else:
    import shelfwise.fit
def late():
    from shelfwise.models import heads
    from shelfwise.cli import run
"""
    assert imported(ast.parse(code)) == {"fit", "models.heads", "cli"}


@pytest.mark.parametrize(
    "code",
    [
        "import shelfwise",
        "import shelfwise; dir(shelfwise); shelfwise.ShelfwiseError",
        "import sys; sys.argv = ['shelfwise', '--help']\nfrom shelfwise.cli import run\nrun()",
        "import sys; sys.argv = ['shelfwise', 'fit', '--help']\nfrom shelfwise.cli import run\nrun()",
    ],
)
def test_nothing_slow_is_imported(code: str):
    program = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program + code], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "HEAVY []"


def test_python_m_answers_help():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "shelfwise.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    names = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert not names & set(HEAVY)
    assert "predict" in done.stdout


def test_trust_and_values_know_no_torch():
    for name, path in modules().items():
        if LAYER.get(name, 99) <= 2 or name.startswith("trust"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"^\s*(import|from) torch\b", text, re.MULTILINE), f"{name} imports torch"


def test_nothing_has_an_empty_name():
    empty = re.compile(r"(Manager|Handler|Processor|Helper|Wrapper|Factory|Utils?|Common)$|^Base[A-Z]")
    wrong = []
    for name, path in modules().items():
        if empty.search(name.rsplit(".", 1)[-1].title()):
            wrong.append(name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and (
                empty.search(node.name) or empty.search(node.name.rsplit("_", 1)[-1].title())
            ):
                wrong.append(f"{name}.{node.name}")
    assert not wrong


#: Where a forbidden word has a reason: the kit makes sure that nothing else unpickles, and an error of
#: torch's restricted reader has its class there.
ALLOWED = {"pickle": {"testing", "models.weights"}}


@pytest.mark.parametrize("word", ["pickle", "joblib", "cloudpickle", "marshal", "shelve", "dill"])
def test_nothing_is_pickled(word: str):
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module.split(".")[0]]
            assert word not in names or name in ALLOWED.get(word, ()), f"{name} imports {word}"


def test_only_the_error_class_of_pickle_is_used_to_load_weights():
    text = modules()["models.weights"].read_text(encoding="utf-8")
    assert set(re.findall(r"pickle\.(\w+)", text)) == {"UnpicklingError"}


def test_loading_is_strict_and_nothing_is_swallowed():
    wrong = []
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                for word in node.keywords:
                    off = isinstance(word.value, ast.Constant) and word.value.value is False
                    if word.arg in ("weights_only",) and off:
                        wrong.append(f"{name}:{node.lineno} weights_only=False")
                    if word.arg == "strict" and off and not is_zip(node):
                        wrong.append(f"{name}:{node.lineno} strict=False")
            if isinstance(node, ast.ExceptHandler) and name != "cli" and not raises_again(node):
                caught = "" if node.type is None else ast.unparse(node.type)
                if node.type is None or re.search(r"\b(Base)?Exception\b", caught):
                    wrong.append(f"{name}:{node.lineno} catches everything")
    assert not wrong, "\n".join(wrong)


def is_zip(node: ast.Call) -> bool:
    """``zip(strict=False)`` pairs and polars' ``cast(strict=False)`` nulls: neither loads anything."""
    called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    return called in ("zip", "cast")


#: Longer than other files, for a reason: one function per verb with its options written out; the two values
#: that answers are made of, with the protocols that speak them.
LONGEST = {"cli": 480, "predictions": 470}


def test_files_stay_short():
    long = {
        name: lines
        for name, path in modules().items()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST.get(name, 450)
    }
    assert not long


def test_suppressions_name_what_they_suppress():
    for name, path in modules().items():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"# type: ignore(?!\[)", text), f"{name}: a bare type: ignore"
        assert not re.search(r"# noqa(?!: [A-Z])", text), f"{name}: a bare noqa"
