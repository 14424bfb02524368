import shutil

import pytest
import torch

from edgekd.errors import InputError
from edgekd.run.lock.inputs import recipe_inputs, recipe_key, watched_files
from edgekd.values.recipe import licence_text, load_recipe, recipe_hash

RECIPE = """
[model]
factory = "edgekd.models.resnet:resnet8"
weights = "parts/w.safetensors"
[[teachers]]
keras = "parts/saved"
[data]
source = "d.npz"
[metadata]
name = "x"
licence_file = "LICENCE"
[[stages]]
kind = "quantize"
[budgets]
size_kib = 4
"""


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "one"
    (folder / "parts" / "saved").mkdir(parents=True)
    for name in ("parts/w.safetensors", "parts/saved/a.pb", "parts/saved/b", "d.npz", "LICENCE"):
        (folder / name).write_text(name)
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


def loaded(folder):
    return load_recipe(folder / "recipe.toml")


def test_every_file_that_a_recipe_names_is_an_input(project):
    assert {name: path.name for name, path in recipe_inputs(loaded(project)).items()} == {
        "model.weights": "w.safetensors",
        "teachers.1.keras": "saved",
        "data.source": "d.npz",
        "metadata.licence_file": "LICENCE",
    }


FURTHER = """
[model]
onnx = "t.onnx"
[calibration]
set = "own.toml"
[[stages]]
kind = "distill"
[stages.scheme]
name = "progressive"
assistants = [{ factory = "mine:make", weights = "w.safetensors" }]
[[stages]]
kind = "distill"
scheme = { name = "federated", public = { source = "public.npz" } }
[report]
diagnostics = ["fidelity", { name = "groups", groups = "g.npy" }]
"""


def test_files_of_schemes_diagnostics_and_calibration_are_inputs_too(tmp_path):
    model = torch.nn.Linear(64, 64).eval()
    torch.onnx.export(model, (torch.ones(1, 64),), tmp_path / "t.onnx", dynamo=True, verbose=False)
    assert (tmp_path / "t.onnx.data").exists()
    ids = 'name = "own"\ndata = "d.npz"\npreprocessing = "none"\nids = [0]\n'
    (tmp_path / "own.toml").write_text(ids)
    (tmp_path / "mine.py").write_text("def make(): ...")
    (tmp_path / "recipe.toml").write_text(FURTHER)
    found = {
        name: path.relative_to(tmp_path).as_posix()
        for name, path in recipe_inputs(loaded(tmp_path)).items()
    }
    assert found == {
        "model.onnx": "t.onnx",
        "model.onnx t.onnx.data": "t.onnx.data",
        "stages.1.scheme.assistants.1.weights": "w.safetensors",
        "stages.2.scheme.public.source": "public.npz",
        "calibration.set": "own.toml",
        "report.diagnostics.2.groups": "g.npy",
        "source mine": "mine.py",
    }


def test_the_users_own_factory_is_an_input_and_edgekds_is_not(project):
    (project / "mine.py").write_text("def make(): ...")
    text = RECIPE.replace("edgekd.models.resnet:resnet8", "mine:make")
    (project / "recipe.toml").write_text(text)
    found = recipe_inputs(loaded(project))
    assert found["source mine"] == project / "mine.py"


def test_a_build_watches_the_files_inside_of_folders_and_the_targets(project):
    watched = watched_files(loaded(project), project / "recipe.toml", ["cortex-m4"])
    names = {path.name for path in watched}
    assert {"recipe.toml", "w.safetensors", "a.pb", "b", "d.npz", "cortex-m4.toml"} <= names
    assert "saved" not in names
    assert all(path.is_absolute() for path in watched)


def test_the_key_is_the_same_wherever_the_recipe_lies(project, tmp_path):
    shutil.copytree(project, tmp_path / "deeper" / "two")
    first, second = loaded(project), loaded(tmp_path / "deeper" / "two")
    assert recipe_key(first) == recipe_key(second)
    moved = tmp_path / "three"
    shutil.copytree(project, moved)
    (moved / "parts").rename(moved / "other")
    text = RECIPE.replace("parts/", "other/")
    (moved / "recipe.toml").write_text(text)
    assert recipe_key(loaded(moved)) == recipe_key(first)


@pytest.mark.parametrize("name", ["parts/w.safetensors", "parts/saved/b", "d.npz", "LICENCE"])
def test_the_key_changes_with_every_file(project, name):
    before = recipe_key(loaded(project))
    (project / name).write_text("changed")
    assert recipe_key(loaded(project)) != before


def test_the_key_changes_with_the_recipe_and_the_seed(project):
    before = recipe_key(loaded(project))
    (project / "recipe.toml").write_text("seed = 1\n" + RECIPE)
    assert recipe_key(loaded(project)) != before
    (project / "recipe.toml").write_text(RECIPE.replace("size_kib = 4", "size_kib = 5"))
    assert recipe_key(loaded(project)) != before


def test_the_recipes_hash_in_the_model_is_of_what_decides_its_bytes(project):
    before = recipe_hash(loaded(project))
    (project / "recipe.toml").write_text(RECIPE.replace("size_kib = 4", "size_kib = 5"))
    assert recipe_hash(loaded(project)) == before
    (project / "recipe.toml").write_text(RECIPE + '[report]\ndiagnostics = ["fidelity"]\n')
    assert recipe_hash(loaded(project)) == before
    (project / "recipe.toml").write_text(RECIPE.replace("parts/", "../one/parts/"))
    assert recipe_hash(loaded(project)) == before
    (project / "recipe.toml").write_text(RECIPE.replace('"quantize"', '"distill"'))
    assert recipe_hash(loaded(project)) != before
    (project / "recipe.toml").write_text("seed = 3\n" + RECIPE)
    assert recipe_hash(loaded(project)) != before


def test_a_licence_is_text_or_a_file_of_text(project):
    assert licence_text(loaded(project)) == "LICENCE"
    (project / "LICENCE").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"metadata.licence_file .*not UTF-8 text"):
        licence_text(loaded(project))
    (project / "LICENCE").write_text("x" * 100_001)
    with pytest.raises(InputError, match="100,001 characters are too long for a licence"):
        licence_text(loaded(project))
    (project / "LICENCE").unlink()
    with pytest.raises(InputError, match="no such file"):
        licence_text(loaded(project))
    both = RECIPE.replace('name = "x"', 'licence = "MIT"')
    (project / "recipe.toml").write_text(both)
    with pytest.raises(InputError, match="'licence' or 'licence_file', not both"):
        loaded(project)


def test_the_recipes_key_is_the_same_where_the_factorys_source_is_not_found(tmp_path, monkeypatch):
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "mine_far.py").write_text("def net():\n    pass\n")
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.toml").write_text('[model]\nfactory = "mine_far:net"\n')
    monkeypatch.chdir(sources)
    near = load_recipe(run / "recipe.toml")
    assert list(recipe_inputs(near)) == ["source mine_far"]
    key = recipe_key(near)
    monkeypatch.chdir(tmp_path)
    far = load_recipe(run / "recipe.toml")
    assert recipe_inputs(far) == {}
    assert recipe_key(far) == key
