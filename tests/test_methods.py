"""`edgekd methods`: quick, complete, and with a recipe for each method that the plan accepts."""

import json
import os
import subprocess
import sys
import tomllib

import pytest
from contexts import context
from teaching_cases import data, resnet, situation, teacher_of
from typer.testing import CliRunner

from edgekd.cli import app
from edgekd.data.load import load_data
from edgekd.data.tasks import task_of
from edgekd.errors import InputError
from edgekd.methods import KINDS, find_method, list_methods
from edgekd.network.load import load_network
from edgekd.registry import CRITERIA, LOSSES, SCHEDULES, SCHEMES, TASKS
from edgekd.run.plan import typed_stage
from edgekd.stages import Context
from edgekd.stages.distill.schemes import scheme_of
from edgekd.training.distillation import check_teaching
from edgekd.values.candidate import Candidate
from edgekd.values.recipe import DataTable, Network
from edgekd.values.target import load_target

RUN = CliRunner()


def of(kind: str, name: str):
    return next(method for method in find_method(name) if method.kind == kind)


RESNET = {"factory": "edgekd.models.resnet:resnet8", "arguments": {"channels": 1}}


def stage_of(recipe: str):
    (table,) = tomllib.loads(recipe)["stages"]
    return typed_stage(1, table)


def test_the_list_has_every_method_with_its_summary_and_imports_none_of_them():
    code = (
        "import sys; from edgekd.methods import list_methods; found = list_methods(); "
        "print(len(found), 'torch' in sys.modules, all(each.summary for each in found))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count = sum(len(registry.names()) for registry in KINDS.values())
    assert said.stdout.split() == [str(count), "False", "True"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_from_the_files_is_what_the_methods_say_themselves(kind):
    for each in list_methods(kind):
        entry = KINDS[kind].get(each.name)
        assert (each.summary, each.paper) == (entry.summary, entry.paper)


@pytest.mark.parametrize("name", LOSSES.names())
def test_the_recipe_of_a_loss_is_accepted_by_the_plan(name):
    student, teacher, samples = situation(name)
    stage = stage_of(of("loss", name).recipe)
    teachers = [teacher_of(teacher)]
    assert check_teaching(student, context(stage.teaching, data=samples, teachers=teachers)) == []
    assert stage.teaching.losses[0]["name"] == name


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_the_recipe_of_a_schedule_is_accepted_by_the_plan(name):
    stage = stage_of(of("schedule", name).recipe)
    found = check_teaching(
        resnet(4), context(stage.teaching, data=data(), teachers=[teacher_of(resnet(8))])
    )
    assert found == []
    assert name in str(stage.teaching.losses[0])


@pytest.mark.parametrize("name", CRITERIA.names())
def test_the_recipe_of_a_criterion_is_accepted_by_the_plan(name, tmp_path):
    stage = stage_of(of("criterion", name).recipe)
    samples = data()
    context = Context(load_target("x86"), samples, [teacher_of(resnet(8))], tmp_path)
    assert stage.check(Candidate(resnet(64), samples.example), context, "stages.1") == []


@pytest.mark.parametrize("name", SCHEMES.names())
def test_the_recipe_of_a_scheme_is_accepted_by_the_plan(name, tmp_path):
    recipe = tomllib.loads(of("scheme", name).recipe)
    stage = typed_stage(1, recipe["stages"][0])
    assert type(scheme_of(stage.scheme, "here")) is SCHEMES.get(name).make
    network = load_network(Network.model_validate(recipe.get("student", RESNET)), tmp_path, "")
    named = [Network.model_validate({**table, "weights": None})
             for table in recipe.get("teachers", [RESNET])]  # fmt: skip
    teachers = [teacher_of(load_network(each, tmp_path, "").eval()) for each in named]
    digits = load_data(DataTable(source="digits", limit=400), tmp_path)
    context = Context(load_target("x86"), digits, teachers, tmp_path)
    assert stage.check(Candidate(network.eval(), digits.example), context, "stages.1") == []


@pytest.mark.parametrize("name", TASKS.names())
def test_the_recipe_of_a_task_names_it(name):
    table = tomllib.loads(of("task", name).recipe)["data"]
    assert task_of(table["task"], "here").name == name


def test_one_method_is_shown_with_equation_shapes_defaults_paper_and_recipe():
    said = RUN.invoke(app, ["methods", "crd"]).stdout
    for part in ("h(t, s+)", "(B, C, H, W)", "0.07", "arxiv.org/abs/1910.10699", 'name = "crd"'):
        assert part in said


def test_the_json_of_a_kind_has_parameters_and_recipes():
    found = json.loads(RUN.invoke(app, ["methods", "schedule", "--json"]).stdout)
    linear = next(each for each in found if each["name"] == "linear")
    assert linear["parameters"] == [["start", "float", "required"], ["end", "float", "required"]]
    assert "schedule" in linear["recipe"]


def test_an_unknown_method_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="unknown method 'krd'") as caught:
        find_method("krd")
    assert caught.value.hint == "did you mean 'crd'?"


def test_types_are_described_in_words():
    (mutual,) = find_method("mutual")
    assert ("peers", "int, at least 0", "1") in mutual.parameters


def test_a_closed_pipe_is_not_a_verdict():
    """As of `edgekd methods | head -1`: 1 would say that a budget is broken."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "edgekd", "methods"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")
