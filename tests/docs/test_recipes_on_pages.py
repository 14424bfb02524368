"""Whatever the pages show as a recipe, or as a part of one, is one."""

import tomllib

import pytest
from pages import PAGES, ROOT, blocks_of

from edgekd.run.plan import typed_stage
from edgekd.searching.request import first_value
from edgekd.values.ranges import without_ranges
from edgekd.values.recipe import Recipe
from edgekd.values.tables import parse

ANY_MODEL = {"factory": "net:classifier"}
TABLES = set(Recipe.model_fields)


def tables() -> list[tuple[str, dict]]:
    """The TOML blocks of every page that are made of a recipe's tables."""
    found = []
    for page in PAGES:
        blocks = [tomllib.loads(b.text) for b in blocks_of(page) if b.language == "toml"]
        found += [
            (f"{page.stem}-{number}", table)
            for number, table in enumerate(blocks, 1)
            if set(table) <= TABLES
        ]
    return found


@pytest.mark.parametrize("table", [t for _, t in tables()], ids=[name for name, _ in tables()])
def test_a_block_is_a_recipe(table):
    plain = without_ranges(table, first_value)
    recipe = parse(Recipe, {"model": ANY_MODEL, **plain}, "the page")
    kinds = [typed_stage(number, stage).kind for number, stage in enumerate(recipe.stages, 1)]
    assert kinds == [stage["kind"] for stage in recipe.stages]


def test_pages_show_whole_recipes_and_parts_of_them():
    names = [name for name, _ in tables()]
    assert "your-own-model-1" in names
    assert "recipes-1" in names
    assert len(names) >= 8


def test_the_metric_units_of_the_recipes_page_are_those_of_the_code():
    from edgekd.measure.budgets import UNITS

    page = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    row = {line.split("`")[1].split("_")[0]: line for line in page.splitlines() if "| `" in line}
    assert all(f"`{unit}`" in row["latency"] for unit in ("us", "ms", "s"))
    assert all(f"`{unit}`" in row["memory"] for unit in UNITS["memory"])
    assert all(f"`{unit}`" in row["energy"] for unit in UNITS["energy"])
