"""What is wrong with the user's input is told in one clear error, before any work, with exit 2."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
from safetensors.torch import save_file

from edgekd.errors import InputError
from edgekd.firmware.generate import Generated
from edgekd.models.resnet import resnet8

RECIPE = """
[model]
factory = "edgekd.models.resnet:resnet8"
arguments = {{ channels = 1 }}
{model}
[data]
source = "{data}"
{rest}
"""

SEVEN_CLASSES = """
factory = "edgekd.models.resnet:resnet8"
arguments = { channels = 1, classes = 7 }
"""


@pytest.fixture
def refused(tmp_path, edgekd):
    """Runs `edgekd compress` on a recipe and returns what it wrote to stderr."""

    def run(*options, model="", data="digits", rest="", target="x86", text=None, code=2):
        recipe = tmp_path / "r.toml"
        recipe.write_text(
            RECIPE.format(model=model, data=data, rest=rest) if text is None else text
        )
        arguments = ("compress", recipe, "--target", target, "--out", tmp_path / "out")
        ended, _, told = edgekd(*arguments, *options)
        assert ended == code, told
        assert told.startswith("error: ")
        assert not (tmp_path / "out" / "artifacts").exists()
        return told

    return run


def stage(kind, **keys):
    return "[[stages]]\n" + tomli_w.dumps({"kind": kind, **keys})


def test_no_command_shows_the_help_and_an_incomplete_one_is_an_error(edgekd):
    code, shown, told = edgekd()
    assert (code, told) == (0, "")
    assert "compress  Compress a model" in shown
    for group in ("firmware", "board", "data"):
        assert edgekd(group) == (2, "", "error: Missing command.\nhint: see 'edgekd --help'\n")


def test_an_unknown_key_is_refused_with_the_nearest(refused):
    told = refused(rest="sorce = 1\n")
    assert "data.sorce: unknown key 'sorce'" in told
    assert "hint: did you mean 'source'?" in told


def test_an_unknown_key_of_a_stage_is_refused_with_the_nearest(refused):
    told = refused(rest=stage("distill", epoch=3))
    assert "stages.1 (distill): epoch: unknown key 'epoch'" in told
    assert "did you mean 'epochs'?" in told


def test_a_value_of_the_wrong_type_is_refused(refused):
    told = refused(rest=stage("distill", epochs="many"))
    assert "stages.1 (distill): epochs: Input should be a valid integer" in told
    assert "found 'many'" in told


def test_several_faults_come_out_together(refused):
    told = refused("--budget", "latency_ms=5", rest=stage("distil") + stage("prune", amont=0.5))
    assert told.count("error: ") == 2
    assert "unknown stage 'distil'" in told
    assert "unknown key 'amont'" in told


@pytest.mark.parametrize(
    ("rest", "message", "hint"),
    [
        (stage("quantise"), "unknown stage 'quantise'", "quantize"),
        (stage("distill", losses=[{"name": "atention"}]), "unknown loss 'atention'", "attention"),
        (stage("prune", amount=0.5, criterion="tailor"), "unknown criterion 'tailor'", "taylor"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(refused, rest, message, hint):
    told = refused(rest=rest)
    assert message in told
    assert f"did you mean '{hint}'?" in told


def test_an_unknown_target_is_refused_with_the_nearest(refused):
    told = refused(target="jetson-orn")
    assert "unknown target 'jetson-orn'" in told
    assert "did you mean 'jetson-orin'?" in told


def test_an_unknown_data_set_is_refused_with_the_nearest(refused):
    assert "did you mean 'digits'?" in refused(data="digit")


def test_a_missing_recipe_is_one_error(edgekd, tmp_path):
    missing = tmp_path / "none.toml"
    code, _, told = edgekd("compress", missing, "--target", "x86")
    assert code == 2
    assert told == f"error: {missing}: no such file\n"


def test_missing_weights_are_refused(refused):
    told = refused(model='weights = "none.safetensors"')
    assert "none.safetensors" in told
    assert "no such file" in told


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08" + bytes(40)])
def test_a_file_that_is_not_a_model_is_refused(refused, tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    assert "w.safetensors" in refused(model='weights = "w.safetensors"')
    (tmp_path / "m.pt2").write_bytes(content)
    assert "m.pt2" in refused(text='[model]\nprogram = "m.pt2"\n')
    (tmp_path / "t.onnx").write_bytes(content)
    assert "t.onnx" in refused(rest='[[teachers]]\nonnx = "t.onnx"\n')
    (tmp_path / "t.tflite").write_bytes(content)
    assert "t.tflite" in refused(rest='[[teachers]]\ntflite = "t.tflite"\n')


def test_a_teacher_with_other_outputs_is_refused(refused):
    told = refused(rest=f"[[teachers]]\n{SEVEN_CLASSES}" + stage("distill"))
    assert "7" in told
    assert "10" in told


def test_a_student_with_other_outputs_is_refused(refused):
    assert "outputs of shape (1, 7)" in refused(rest=f"[student]\n{SEVEN_CLASSES}")


def samples(path, **changes):
    x, y = np.random.default_rng(0).random((40, 1, 8, 8), dtype=np.float32), np.arange(40) % 10
    arrays = {"x_train": x, "y_train": y, "x_test": x, "y_test": y}
    np.savez(path, **{**arrays, **changes})


def test_labels_out_of_range_are_refused(refused, tmp_path):
    samples(tmp_path / "d.npz", y_test=np.full(40, -1))
    told = refused(data="d.npz")
    assert "d.npz" in told
    assert "label" in told


def test_nan_in_the_data_is_refused(refused, tmp_path):
    x = np.zeros((40, 1, 8, 8), np.float32)
    x[3] = np.nan
    samples(tmp_path / "d.npz", x_train=x)
    told = refused(data="d.npz")
    assert "d.npz: train" in told
    assert "NaN" in told


def test_nan_in_the_weights_is_refused(refused, tmp_path):
    state = resnet8(channels=1).state_dict()
    state["classifier.bias"] = torch.full((10,), torch.nan)
    save_file(state, tmp_path / "w.safetensors")
    told = refused(model='weights = "w.safetensors"')
    assert "classifier.bias" in told
    assert "NaN" in told


def test_a_layer_that_is_not_there_is_refused_with_the_nearest(refused):
    losses = [{"name": "hint", "student": "stage.1", "teacher": "stages.1"}]
    told = refused(rest=stage("distill", losses=losses))
    assert "'stage.1'" in told
    assert "stages.1" in told


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ([{"name": "kl", "temperature": 0.0}], "temperature must be above 0, found 0"),
        ([{"name": "kl", "temperature": float("inf")}], "needs a finite number, found inf"),
        ([{"name": "kl", "weight": 0.0}], "every weight is zero: there is nothing to learn"),
        (
            [{"name": "hint", "student": "stages.0", "teacher": "classifier"}],
            "student features (16, 8, 8) and teacher features (10,) can't be matched",
        ),
    ],
    ids=["no temperature", "an infinite temperature", "no weight", "no common shape"],
)
def test_a_loss_that_means_nothing_is_refused(refused, losses, message):
    told = refused(rest=stage("distill", losses=losses, label_weight=0.0))
    assert "stages.1" in told
    assert message in told


def test_a_stage_after_quantize_is_refused(refused):
    told = refused(rest=stage("quantize") + stage("prune", amount=0.5))
    assert "'prune' after 'quantize'" in told
    assert "move the quantize stage to the end" in told


def test_a_pruning_ratio_that_leaves_no_channel_is_refused(refused):
    told = refused(rest=stage("prune", amount=1.0))
    assert "stages.1 (prune)" in told
    assert "amount" in told


def test_a_rank_above_full_is_refused(refused):
    told = refused(rest=stage("factorize") + "rank = { rank = 5000 }\n")
    assert "stages.1 (factorize)" in told
    assert "5000" in told


def test_an_operator_that_the_target_lacks_is_refused(refused, tmp_path):
    from edgekd.values.target import target_path

    profile = target_path("x86").read_text().replace('name = "x86"', 'name = "poor"')
    profile = profile.replace(
        "channel_multiple", 'unsupported_ops = ["aten.relu"]\nchannel_multiple'
    )
    (tmp_path / "poor.toml").write_text(profile)
    told = refused(target=str(tmp_path / "poor.toml"), rest=stage("quantize"))
    assert "aten.relu" in told


def test_a_model_without_int8_for_the_edge_tpu_is_refused(refused):
    assert "the Edge TPU runs int8 only" in refused(target="coral-usb")


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("latency_hours=5", "unknown unit 'hours' of latency"),
        ("latency_ms=-1", "a limit has to be above 0"),
        ("latency_ms", "'latency_ms' is not a budget"),
        ("latncy_ms=5", "unknown budget 'latncy_ms'"),
    ],
)
def test_a_budget_that_can_not_be_is_refused(refused, budget, message):
    assert message in refused("--budget", budget)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ("latncy_ms = 5", "budgets latncy_ms: unknown budget 'latncy_ms'"),
        ("latency_ms = -5", "budgets latency_ms: a limit has to be above 0, found -5"),
        ("latency_ms = 5\nlatency_us = 9", "budgets latency_us: the same budget as 'latency_ms'"),
    ],
)
def test_a_budget_of_the_recipe_that_can_not_be_is_refused(refused, limits, message):
    assert message in refused(rest=f"[budgets]\n{limits}\n")


def test_a_budget_of_a_targets_file_that_can_not_be_is_refused(refused, tmp_path):
    profile = Path("targets/x86.toml").read_text(encoding="utf-8")
    own = tmp_path / "own.toml"
    own.write_text(profile.replace('"x86"', '"own"', 1).replace("latency_ms = 50", "latncy = 50"))
    assert "target own: budgets latncy: unknown budget" in refused(target=own)


@pytest.mark.parametrize("seed", [-1, 2**32, 10**20])
def test_a_seed_that_not_every_generator_takes_is_refused(refused, seed):
    assert f"--seed: {seed} is not a valid seed (allowed: 0 to 4294967295)" in refused(
        "--seed", str(seed)
    )
    assert "r.toml: seed: Input should be " in refused("--set", f"seed={seed}")


def test_a_targets_file_with_the_name_of_another_target_is_refused(refused, tmp_path):
    profile = Path("targets/x86.toml").read_text(encoding="utf-8")
    (tmp_path / "x86.toml").write_text(profile.replace("cores = 2", "cores = 4"))
    told = refused(target=tmp_path / "x86.toml")
    assert "--target: another target is also named 'x86'" in told
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        own = profile.replace('"x86"', '"own"', 1).replace('title = "', f'title = "{folder} ')
        (tmp_path / folder / "own.toml").write_text(own)
    told = refused("--target", tmp_path / "a/own.toml", target=tmp_path / "b/own.toml")
    assert "another target is also named 'own'" in told


def test_one_limit_twice_on_the_command_line_is_refused(refused):
    told = refused("--budget", "size_kb=5", "--budget", "size_kib=6")
    assert "--budget size_kib: the same budget as 'size_kb'" in told


def test_the_only_backend_that_is_missing_is_refused_with_the_command_that_installs_it(
    refused, monkeypatch
):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "edgekd.installed.find_spec",
        lambda name, *rest: None if name == "onnxscript" else real(name, *rest),
    )
    told = refused("--backend", "onnx")
    assert "onnxscript is not installed" in told
    assert "hint: pip install 'edgekd[onnx]'" in told


def test_a_missing_backend_does_not_stop_the_others(edgekd, tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "edgekd.installed.find_spec",
        lambda name, *rest: None if name == "onnxscript" else real(name, *rest),
    )
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE.format(model="", data="digits", rest=""))
    out = tmp_path / "out"
    code, _, plan = edgekd("compress", recipe, "--target", "x86", "--out", out, "--dry-run")
    assert code == 0
    assert "x86: compile with tflite, tvm, then measure" in plan
    assert "x86: without onnx: onnxscript is not installed" in plan
    assert "(pip install 'edgekd[onnx]')" in plan


def test_a_backend_that_no_target_has_is_refused_with_the_allowed_ones(refused):
    told = refused("--backend", "tflit", "--backend", "onnx")
    assert "--backend: 'tflit' is not a backend of x86" in told
    assert "(allowed: onnx, tflite, tvm)" in told
    assert "hint: did you mean 'tflite'?" in told
    told = refused("--backend", "tvm", "--target", "cortex-m4")
    assert "--backend: cortex-m4 has none of these backends (allowed: tflite, c)" in told


def test_a_follower_chosen_alone_brings_the_backend_that_it_starts_from(edgekd, tmp_path):
    recipe = tmp_path / "r.toml"
    quantize = stage("quantize", dtype="int8", method="calibrate")
    recipe.write_text(RECIPE.format(model="", data="digits", rest=quantize))
    arguments = ("--target", "cortex-m4", "--backend", "c", "--out", tmp_path / "out", "--dry-run")
    code, _, plan = edgekd("compress", recipe, *arguments)
    assert (code, "cortex-m4: compile with tflite, c, then measure" in plan) == (0, True), plan


def test_an_output_that_can_not_be_written_is_refused(refused, tmp_path):
    (tmp_path / "out").write_text("a file")
    told = refused()
    assert f"{tmp_path / 'out'}" in told
    assert "not writable" in told
    assert "choose another folder" in told


IN_PROC = Path("/proc/edgekd")
"""A folder that Linux refuses to create by claiming that it does not exist."""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc of Linux")
@pytest.mark.parametrize(
    "command",
    [
        ("compress", "--target", "x86", "--out", IN_PROC),
        ("search", "--target", "x86", "--out", IN_PROC),
        ("init", IN_PROC),
        ("bench", "gone.onnx", "--plot", IN_PROC / "x.svg"),
        ("diagnose", "gone.onnx", "--plot", IN_PROC / "x.svg"),
    ],
    ids=lambda command: command[0],
)
def test_a_folder_that_the_system_claims_does_not_exist_is_refused(edgekd, command):
    code, _, told = edgekd(*command)
    assert (code, told.count("not writable: No such file or directory")) == (2, 1), told
    assert str(IN_PROC) in told
    assert "hint: choose another folder" in told


def test_an_unwritable_output_of_bench_is_reported_before_measuring(edgekd, tmp_path):
    (tmp_path / "file").write_text("a file")
    plot = tmp_path / "file" / "x.svg"
    code, _, told = edgekd("bench", "gone.onnx", "--plot", plot, "--target", "gone")
    assert code == 2
    assert told.count("not writable") == 1
    assert "unknown target 'gone'" in told, "nothing was opened yet"


def test_a_recipe_to_start_from_needs_a_folder_that_can_be_written(edgekd, tmp_path):
    (tmp_path / "file").write_text("a file")
    code, _, told = edgekd("init", tmp_path / "file" / "mine")
    assert code == 2
    assert "not writable: Not a directory" in told


def test_a_recipe_to_start_from_that_was_not_finished_is_written_again(
    edgekd, tmp_path, monkeypatch
):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    code, _, told = edgekd("init", tmp_path)
    assert code == 3
    assert "the disk is full" in told
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    assert edgekd("init", tmp_path)[0] == 0


def test_sources_need_a_folder_that_can_be_written(tmp_path):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(InputError, match="not writable: Not a directory"):
        Generated("net", "", "", {}).write(tmp_path / "file" / "src")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stage.distil.epochs=3", "no stage 'distil'"),
        ("nothing", "'nothing' is not KEY=VALUE"),
        ("data.sorce=digits", "unknown key 'sorce'"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(refused, setting, message):
    assert message in refused("--set", setting, rest=stage("distill"))


def test_only_weaker_kinds_can_be_accepted(refused):
    assert "'measured' can't be accepted" in refused("--accept", "measured")


def test_an_unknown_device_is_refused(refused):
    assert "unknown kind of device 'htos'" in refused("--device", "htos")
