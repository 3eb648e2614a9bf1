"""Costs: a table of what each mistake costs, by attribute or for one category, and every wrong row named."""

from pathlib import Path

import numpy as np
import pytest

from shelfwise.errors import CatalogError, ConfigError
from shelfwise.taxonomy import Choice, Number, Taxonomy
from shelfwise.trust.costs import read_costs

TAXONOMY = Taxonomy(
    {
        "Cups": (
            Choice("colour", ("blue", "green", "red"), {"navy": "blue"}),
            Choice("size", ("big", "small")),
            Number("price"),
        ),
        "Plates": (Choice("colour", ("blue", "red")),),
    }
)


def table(tmp_path: Path, *lines: str, header: str = "attribute,truth,answer,cost") -> Path:
    path = tmp_path / "costs.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_rows_are_the_truth_and_columns_the_answer(tmp_path: Path):
    found = read_costs(table(tmp_path, "colour,red,blue,5", "size,big,small,0.25"), TAXONOMY)
    assert np.array(found["Cups", "colour"]).tolist() == [[0, 1, 1], [1, 0, 1], [5, 1, 0]]
    assert np.array(found["Plates", "colour"]).tolist() == [[0, 1], [5, 0]], "of every category that has it"
    assert np.array(found["Cups", "size"]).tolist() == [[0, 0.25], [1, 0]]
    assert len(found) == 3


def test_a_row_may_be_of_one_category_and_of_values_that_only_one_has(tmp_path: Path):
    path = table(
        tmp_path,
        "Plates,colour,red,blue,7",
        ",colour,green,red,3",
        header="category,attribute,truth,answer,cost",
    )
    found = read_costs(path, TAXONOMY)
    assert np.array(found["Plates", "colour"]).tolist() == [[0, 1], [7, 0]]
    assert np.array(found["Cups", "colour"]).tolist() == [[0, 1, 1], [1, 0, 3], [1, 1, 0]]


def test_aliases_and_right_answers_that_cost(tmp_path: Path):
    found = read_costs(table(tmp_path, "colour,navy,red,2", "size,big,big,1"), TAXONOMY)
    assert found["Cups", "colour"][0][2] == 2
    assert found["Cups", "size"][0] == (1, 1), (
        "answering rightly may cost as well, such as a look by a person"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("color,red,blue,5", r"row 2: no attribute 'color'.* Did you mean 'colour'\?"),
        ("price,red,blue,5", "row 2: no attribute 'price'"),
        ("colour,red,blue,", "row 2: a cost is a number of 0 or more, not"),
        ("colour,red,blue,dear", "row 2: a cost is a number of 0 or more, not 'dear'"),
        ("colour,red,blue,-1", "row 2: a cost is a number of 0 or more, not '-1'"),
        ("colour,red,blue,inf", "row 2: a cost is a number of 0 or more, not 'inf'"),
        ("colour,red,black,1", "row 2: 'colour' has not both values 'red' and 'black'"),
        ("size,red,big,1", "row 2: 'size' has not both values 'red' and 'big'"),
    ],
)
def test_what_is_wrong_is_named_with_its_row(tmp_path: Path, line: str, message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        read_costs(table(tmp_path, "colour,red,blue,1", line), TAXONOMY)
    assert "costs.csv" in str(caught.value)


def test_an_attribute_of_another_category(tmp_path: Path):
    path = table(tmp_path, "Plates,size,big,small,1", header="category,attribute,truth,answer,cost")
    with pytest.raises(ConfigError, match="row 1: no attribute 'size' in 'Plates'"):
        read_costs(path, TAXONOMY)


def test_tables_without_the_columns_and_no_table(tmp_path: Path):
    with pytest.raises(
        ConfigError, match="costs need the columns attribute, truth, answer, cost; truth, cost not"
    ):
        read_costs(table(tmp_path, "a,b", header="attribute,answer"), TAXONOMY)
    with pytest.raises(CatalogError, match="there is no table"):
        read_costs(tmp_path / "none.csv", TAXONOMY)
