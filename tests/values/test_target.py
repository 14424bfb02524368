import tomllib
from pathlib import Path

import pytest

from edgekd.errors import Faults, InputError
from edgekd.measure.budgets import check_budgets
from edgekd.values.target import (
    fits,
    hard_limits,
    load_target,
    parse_target,
    target_aliases,
    target_files,
    unsupported_ops_of,
)

SHIPPED = Path(__file__).parents[2] / "targets"
NAMES = sorted(path.stem for path in SHIPPED.glob("*.toml"))
WANTED = {
    "x86", "x86-vnni", "raspberry-pi-4", "raspberry-pi-5", "cortex-a53", "coral-usb",
    "coral-dev-board", "jetson-orin", "jetson-orin-nx", "jetson-orin-nano",
    "cortex-m4", "cortex-m7", "cortex-m55", "ethos-u55", "ethos-u55-128", "ethos-u65", "ethos-u85",
}  # fmt: skip


@pytest.fixture
def table():
    return tomllib.loads((SHIPPED / "jetson-orin.toml").read_text())


def test_every_wanted_target_is_shipped():
    assert set(NAMES) >= WANTED


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_profile_is_read_and_agrees_with_itself(name):
    target = load_target(str(SHIPPED / f"{name}.toml"))
    assert target.name == name
    assert not check_budgets(target.budgets, name)
    if name.startswith("jetson"):
        gpu = target.accelerator("cuda")
        assert gpu is not None
        assert gpu.compute == "sm_87"
        assert target.backends["tvm"]["arch"] == gpu.compute
        assert target.quantization.activations == "int8-symmetric"
        assert target.sensors.energy == "ina3221"
    if name.startswith("coral"):
        edgetpu = target.accelerator("edgetpu")
        assert edgetpu is not None
        assert edgetpu.on_chip_bytes == 8 * 2**20
        assert {"tflite", "edgetpu"} <= set(target.backends)
    if name.startswith("x86"):
        vnni = "avx512_vnni" in target.hardware.isa
        assert target.quantization.weight_bits == (8 if vnni else 7)
        assert target.quantization.activations == "uint8-affine"
    if name.startswith("cortex-m"):
        assert target.hardware.architecture == "thumb"
        assert set(hard_limits(target)) == {"size_bytes", "memory_bytes"}
    if name.startswith("ethos"):
        assert target.accelerator("ethos-u") is not None
        macs = target.accelerator("ethos-u").name.lower()
        assert target.backends["vela"]["accelerator_config"] == macs
    dot = "+dotprod" in target.backends.get("tvm", {}).get("mattr", [])
    assert not dot or "dotprod" in target.hardware.isa


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_profile_names_its_sources(name):
    lines = (SHIPPED / f"{name}.toml").read_text().splitlines()
    assert sum("#" in line for line in lines) >= 5


@pytest.mark.parametrize(
    ("alias", "name"), [("coral", "coral-dev-board"), ("jetson-orin-agx", "jetson-orin")]
)
def test_an_alias_loads_the_board_it_stands_for(alias, name):
    assert load_target(alias).name == name
    assert target_aliases()[alias] == name


def test_the_rails_of_a_module_are_its_own():
    assert load_target("jetson-orin-nano").sensors.rails == ("VDD_IN",)
    assert "VDD_IN" not in load_target("jetson-orin").sensors.rails


def test_an_unknown_target_is_refused_with_the_nearest_name():
    with pytest.raises(InputError) as caught:
        load_target("jetson-orim")
    assert caught.value.hint == "did you mean 'jetson-orin'?"
    assert "coral" in caught.value.allowed


def test_a_file_in_the_working_directory_comes_first(tmp_path, monkeypatch):
    folder = tmp_path / "targets"
    folder.mkdir()
    text = (SHIPPED / "x86.toml").read_text()
    (folder / "x86.toml").write_text(text.replace("cores = 2", "cores = 64"))
    monkeypatch.chdir(tmp_path)
    assert load_target("x86").hardware.cores == 64
    assert target_files()["x86"] == folder / "x86.toml"


def test_a_broken_neighbour_does_not_hide_the_other_names(tmp_path, monkeypatch):
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "broken.toml").write_text("= no TOML")
    monkeypatch.chdir(tmp_path)
    assert load_target("coral").name == "coral-dev-board"
    with pytest.raises(InputError, match="not valid TOML"):
        load_target("broken")


def test_an_unknown_option_of_a_backend_is_refused_with_the_nearest(table):
    table["backends"]["tensorrt"]["time_limit_second"] = 5
    with pytest.raises(InputError) as caught:
        parse_target(table, "t.toml")
    assert "unknown key 'time_limit_second'" in str(caught.value)
    assert "backends.tensorrt" in caught.value.where
    assert caught.value.hint == "did you mean 'time_limit_seconds'?"


def test_every_fault_of_a_profile_comes_out_at_once(table):
    table["backends"]["tensorrt"]["builder_optimization_level"] = 9
    table["backends"]["tensort"] = {}
    table["hardware"]["cores"] = 0
    with pytest.raises(Faults) as caught:
        parse_target(table, "t.toml", expected="other")
    told = str(caught.value)
    for words in ("less than or equal to 5", "unknown backend 'tensort'", "greater than 0"):
        assert words in told
    assert "differs from the file's name" in told


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t["backends"].pop("onnx"), "follows 'onnx'"),
        (lambda t: t.pop("accelerators"), "needs an accelerator of the kind 'cuda'"),
        (lambda t: t["accelerators"][0].pop("compute"), "needs its compute capability"),
        (lambda t: t["quantization"].update(activations="int8-affine"), "int8-symmetric"),
        (lambda t: t["quantization"].update(weight_bits=7), "x86 without VNNI only"),
        (lambda t: t["sensors"].update(energy="none"), "'rails' go with"),
        (lambda t: t.update(backends={}), "at least 1"),
    ],
)
def test_facts_that_contradict_each_other_are_refused(table, change, words):
    change(table)
    with pytest.raises(InputError, match=words):
        parse_target(table, "t.toml")


def test_a_model_that_memory_cannot_hold_is_told_with_the_numbers():
    target = load_target("coral-dev-board")  # 1 GiB of memory, 8 GB of storage
    assert fits(target, 500 * 2**20, 500 * 2**20) == ""
    reason = fits(target, 900 * 2**20, 200 * 2**20)
    assert reason == (
        "900.0 MiB of parameters and 200.0 MiB of activations need 1.1 GiB of memory; "
        "coral-dev-board has 1.0 GiB"
    )


def test_parameters_beyond_the_storage_are_told():
    target = load_target("coral")
    hardware = target.hardware.model_copy(update={"storage_bytes": 2**20})
    reason = fits(target.model_copy(update={"hardware": hardware}), 3 * 2**20, 0)
    assert reason == "3.0 MiB of parameters; coral-dev-board has 1.0 MiB of storage"


def test_a_microcontroller_reads_its_weights_in_place():
    target = load_target("cortex-m7")  # 320 KiB of memory, 1 MiB of flash
    assert fits(target, 1000 * 1024, 300 * 1024) == ""
    assert fits(target, 1000, 400 * 1024) == (
        "400.0 KiB of activations; cortex-m7 has 320.0 KiB of memory"
    )
    assert fits(target, 2 * 2**20, 0) == ("2.0 MiB of parameters; cortex-m7 has 1.0 MiB of storage")
    assert hard_limits(target) == {"size_bytes": 1048576.0, "memory_bytes": 327680.0}
    assert hard_limits(load_target("raspberry-pi-5")) == {}


def test_operators_are_refused_in_either_spelling_and_with_any_overload():
    target = load_target("coral")
    ops = ["aten.conv2d.default", "aten.nonzero.default", "aten::nonzero", "aten.nonzero.default"]
    assert unsupported_ops_of(ops, target) == ("aten.nonzero.default", "aten::nonzero")
    assert unsupported_ops_of(ops, load_target("x86")) == ()
