import argparse
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgekd.errors import EdgekdError, Faults, InputError
from edgekd.network.checkpoints import checkpoint_files, conversion
from edgekd.network.load import network_key
from edgekd.network.weights import load_weights, weights_notes
from edgekd.values.recipe import Network


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return network().state_dict()


def loads(path: Path, weights: dict[str, torch.Tensor]) -> bool:
    torch.manual_seed(2)
    module = network()
    load_weights(module, path)
    state = module.state_dict()
    return all(torch.equal(state[name], tensor) for name, tensor in weights.items())


def refused(path: Path) -> EdgekdError:
    with pytest.raises(InputError) as caught:
        load_weights(network(), path)
    return caught.value


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
def test_a_state_dict_of_torch_save_is_loaded(tmp_path, weights, suffix):
    torch.save(weights, tmp_path / f"w{suffix}")
    assert loads(tmp_path / f"w{suffix}", weights)


def test_the_format_before_zip_files_is_loaded(tmp_path, weights):
    torch.save(weights, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert loads(tmp_path / "w.pth", weights)


def test_safetensors_under_another_suffix_are_loaded(tmp_path, weights):
    save_file(weights, tmp_path / "w.bin")
    assert loads(tmp_path / "w.bin", weights)


@pytest.mark.parametrize("key", ["model", "state_dict", "ema", "model_ema", "net", "params"])
def test_the_state_dict_is_found_under_the_usual_keys(tmp_path, weights, key):
    torch.save({"epoch": 3, "step": torch.tensor(3), key: weights}, tmp_path / "w.pt")
    assert loads(tmp_path / "w.pt", weights)


def test_averaged_weights_come_before_the_last_ones(tmp_path, weights):
    last = {name: tensor + 1 for name, tensor in weights.items()}
    torch.save({"model": last, "ema": {"module": weights}}, tmp_path / "w.pt")
    assert loads(tmp_path / "w.pt", weights)
    module = network()
    load_weights(module, tmp_path / "w.pt")
    note = "w.pt: the weights under 'ema.module' are used, not those under 'model'"
    assert weights_notes(module) == (note,)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.model."])
def test_a_wrappers_prefix_is_stripped(tmp_path, weights, prefix):
    torch.save({prefix + name: tensor for name, tensor in weights.items()}, tmp_path / "w.pt")
    assert loads(tmp_path / "w.pt", weights)


def test_a_prefix_that_the_network_has_itself_stays(tmp_path):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.Linear(3, 2)

    source, module = Wrapped(), Wrapped()
    torch.save(source.state_dict(), tmp_path / "w.pt")
    load_weights(module, tmp_path / "w.pt")
    assert torch.equal(module.model.weight, source.model.weight)


def test_the_counter_of_averaged_weights_and_of_a_batch_norm_do_not_matter(tmp_path, weights):
    del weights["1.num_batches_tracked"]
    torch.save({"n_averaged": torch.tensor(5), **weights}, tmp_path / "w.pt")
    assert loads(tmp_path / "w.pt", weights)


def test_a_tensor_beside_the_model_is_reported_as_foreign(tmp_path, weights):
    moved = {f"model.{name}": tensor for name, tensor in weights.items()}
    torch.save({"state_dict": {**moved, "loss.weight": torch.ones(2)}}, tmp_path / "w.ckpt")
    assert "has 'loss.weight', which the network lacks" in str(refused(tmp_path / "w.ckpt"))


def test_every_fault_is_reported_at_once(tmp_path, weights):
    weights["3.weights"] = weights.pop("3.weight")
    weights["0.bias"] = torch.zeros(5)
    weights["1.bias"][0] = float("nan")
    torch.save(weights, tmp_path / "w.pt")
    error = refused(tmp_path / "w.pt")
    assert isinstance(error, Faults)
    missing, foreign, *others = error.faults
    assert missing.message == "lacks '3.weight', which the network has"
    assert foreign.message == "has '3.weights', which the network lacks"
    assert foreign.hint == "did you mean '3.weight'?"
    assert sorted(str(other).partition(": ")[2] for other in others) == [
        "'0.bias' has shape (5,) (allowed: (4,))",
        "NaN or infinity in '1.bias'",
    ]


@pytest.mark.parametrize("size", [0, 3, 60, -1, -40])
def test_a_truncated_checkpoint_is_one_error(tmp_path, weights, size):
    path = tmp_path / "w.pt"
    torch.save(weights, path)
    path.write_bytes(path.read_bytes()[:size])
    assert "not a complete PyTorch checkpoint" in str(refused(path))


def test_a_checkpoint_without_tensors_says_what_it_has(tmp_path):
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "w.pt")
    assert "no state dict in it; it has ['epoch', 'lr']" in str(refused(tmp_path / "w.pt"))


class Explodes:
    def __reduce__(self):
        return os.mkdir, (os.environ["EXPLODES"],)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_is_unpickled(tmp_path, monkeypatch, weights, zipped):
    monkeypatch.setenv("EXPLODES", str(tmp_path / "executed"))
    torch.save(
        {"model": weights, "hook": Explodes()},
        tmp_path / "w.pt",
        _use_new_zipfile_serialization=zipped,
    )
    error = refused(tmp_path / "w.pt")
    assert not (tmp_path / "executed").exists()
    assert "unpickling them can run any code" in str(error)


def test_the_hint_converts_a_trusted_checkpoint(tmp_path, weights):
    path = tmp_path / "w.pt"
    torch.save({"model": network(), "args": argparse.Namespace(lr=1)}, path)
    error = refused(path)
    assert "it pickles " in str(error)
    assert conversion(path) in error.hint
    assert "weights_only=False" in error.hint


def test_the_conversion_that_is_named_works(tmp_path, weights):
    path = tmp_path / "w.pt"
    torch.save({"state_dict": weights, "args": argparse.Namespace(lr=1)}, path)
    code = conversion(path).removeprefix('python -c "').removesuffix('"')
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        exec(code, {})
    finally:
        os.chdir(here)
    assert loads(tmp_path / "w.weights.pt", weights)


def test_a_torchscript_file_is_not_a_checkpoint(tmp_path):
    torch.jit.script(network()).save(str(tmp_path / "w.pt"))
    error = refused(tmp_path / "w.pt")
    assert "a TorchScript program, not a checkpoint" in str(error)
    assert "torchscript = " in error.hint


def sharded(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    names = sorted(weights)
    halves = {"a.safetensors": names[:4], "b.safetensors": names[4:]}
    for file, part in halves.items():
        save_file({name: weights[name] for name in part}, folder / file)
    places = {name: file for file, part in halves.items() for name in part}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


def test_shards_are_loaded_by_their_index(tmp_path, weights):
    index = sharded(tmp_path, weights)
    assert loads(index, weights)
    assert [file.name for file in checkpoint_files(index)[1:]] == ["a.safetensors", "b.safetensors"]


def test_the_key_of_a_network_follows_every_shard(tmp_path, weights):
    index = sharded(tmp_path, weights)
    table = Network(factory="torch.nn:Linear", weights=Path(index.name))
    before = network_key(table, tmp_path)
    save_file({"other": torch.ones(1)}, tmp_path / "b.safetensors")
    assert network_key(table, tmp_path) != before


def test_an_index_names_a_missing_shard_or_tensor(tmp_path, weights):
    index = sharded(tmp_path, weights)
    save_file({"3.bias": weights["3.bias"]}, tmp_path / "b.safetensors")
    assert "which model.safetensors.index.json says it has" in str(refused(index))
    (tmp_path / "b.safetensors").unlink()
    assert str(refused(index)).endswith("b.safetensors: no such file")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"weight_map": {"a": "../a.safetensors"}}', '{"weight_map": {"a": 3}}'],
)
def test_an_index_names_files_beside_it_only(tmp_path, text):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(text)
    assert "not an index of a sharded checkpoint" in str(refused(path))
