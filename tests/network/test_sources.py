"""Networks from the libraries that recipes can name. Each test skips without its library."""

import copy
import importlib.metadata
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from edgekd.errors import EdgekdError, InputError, MissingPackage
from edgekd.installed import has_module
from edgekd.network import sources
from edgekd.network.load import load_network, network_key
from edgekd.network.sources import Source
from edgekd.registry import SOURCES, Entry
from edgekd.values.recipe import Network, named_files, recipe_from
from edgekd.values.tree import named_leaves


def needs(module: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not has_module(module), reason=f"{module} is not installed")


def load(folder: Path = Path(), **table: object) -> nn.Module:
    return load_network(Network.model_validate(table), folder, "model")


def refused(folder: Path = Path(), **table: object) -> EdgekdError:
    with pytest.raises(InputError) as caught:
        load(folder, **table)
    return caught.value


def test_an_unknown_source_is_refused_with_the_nearest_one():
    error = refused(source="tim:resnet18")
    assert "unknown source 'tim'" in str(error)
    assert error.hint == "did you mean 'timm'?"


@pytest.mark.parametrize("text", ["timm", "timm:", ":resnet18", ""])
def test_a_source_without_a_name_is_refused(text):
    with pytest.raises(ValueError, match="source"):
        Network(source=text)


def test_a_factory_is_written_as_one():
    with pytest.raises(ValueError, match=r"write factory = 'a\.b:c'"):
        Network(source="factory:a.b:c")


def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(sources, "has_module", lambda name: False)
    error = refused(source="timm:resnet18")
    assert isinstance(error, MissingPackage)
    assert error.hint == "pip install 'edgekd[timm]'"


def test_a_source_of_another_package_is_loaded_by_its_entry_point(monkeypatch):
    class Theirs(Source):
        """Somebody else's networks."""

        def load(self, request):
            return nn.Linear(int(request.name), **request.arguments)

    monkeypatch.setitem(SOURCES._entries, "theirs", Entry("theirs", Theirs, ""))
    module = load(source="theirs:3", arguments={"out_features": 2})
    assert module(torch.zeros(1, 3)).shape == (1, 2)


def test_the_key_follows_the_version_of_the_library(monkeypatch):
    class Theirs(Source):
        """Somebody else's networks."""

        packages = {"torch": "torch"}

    monkeypatch.setitem(SOURCES._entries, "theirs", Entry("theirs", Theirs, ""))
    table = Network(source="theirs:3")
    before = network_key(table, Path())
    monkeypatch.setattr("edgekd.installed.version", lambda name: "0.0")
    assert network_key(table, Path()) != before


def test_the_path_in_a_source_is_a_file_of_the_recipe():
    table = {"model": {"source": "transformers:bert"}, "student": {"source": "timm:resnet18"}}
    dumped = recipe_from(table, Path(), "recipe").model_dump(mode="json")
    (file,) = named_files(dumped)
    assert (file.place, file.path) == ("model.source", "bert")
    file.replace("../bert")
    assert dumped["model"]["source"] == "transformers:../bert"


@needs("timm")
def test_a_network_of_timm_by_name_with_arguments_and_weights(tmp_path):
    table = {"source": "timm:mobilenetv3_small_050", "arguments": {"num_classes": 7}}
    first = load(**table)
    torch.save(first.state_dict(), tmp_path / "w.pth")
    second = load(tmp_path, weights="w.pth", **table)
    x = torch.rand(1, 3, 32, 32)
    assert second(x).shape == (1, 7)
    assert torch.equal(first(x), second(x))
    assert not second.training


@needs("timm")
@pytest.mark.parametrize(
    ("table", "message", "hint"),
    [
        ({"source": "timm:resnet81"}, "timm has no model 'resnet81'", "did you mean 'resnet"),
        ({"source": "timm:hf-hub:some/model"}, "timm has no model", ""),
        (
            {"source": "timm:resnet18", "arguments": {"num_clases": 3}},
            "'resnet18' can't be built: TypeError",
            "",
        ),
        (
            {"source": "timm:resnet18", "arguments": {"checkpoint_path": "w.pth"}},
            "timm would load this checkpoint by itself",
            "weights = ...",
        ),
    ],
)
def test_what_timm_can_not_build_is_one_error(table, message, hint):
    error = refused(**table)
    assert message in str(error)
    assert hint in error.hint


@needs("torchvision")
def test_a_network_of_torchvision_downloads_nothing(monkeypatch):
    def download(*arguments: object, **keys: object) -> None:
        raise AssertionError("it downloads")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", download)
    module = load(source="torchvision:mobilenet_v2", arguments={"num_classes": 4})
    assert module(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
    segmentation = load(source="torchvision:lraspp_mobilenet_v3_large")
    assert segmentation(torch.zeros(1, 3, 32, 32)) is not None
    assert "torchvision has no model" in str(refused(source="torchvision:mobilnet"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a snapshot in `bert`."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("transformers")
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        vocab_size=50, max_position_embeddings=16,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(config).save_pretrained(folder / "bert")
    return folder


def test_a_snapshot_of_transformers_has_its_own_weights(bert):
    first, second = load(bert, source="transformers:bert"), load(bert, source="transformers:bert")
    assert type(first).__name__ == "BertForSequenceClassification"
    name, tensor = next(iter(first.state_dict().items()))
    assert torch.equal(tensor, second.state_dict()[name])
    assert first.config.use_cache is False


def test_a_config_of_transformers_gives_random_weights_and_takes_a_checkpoint(bert):
    table = {"source": "transformers:bert/config.json", "arguments": {"num_labels": 5}}
    assert load(bert, **table).classifier.out_features == 5
    table = {"source": "transformers:bert/config.json", "weights": "bert/model.safetensors"}
    drawn, stored = load(bert, **table), load(bert, source="transformers:bert")
    assert torch.equal(drawn.classifier.weight, stored.classifier.weight)


def test_another_architecture_of_a_config_can_be_named(bert):
    table = {
        "source": "transformers:bert/config.json",
        "arguments": {"architecture": "BertForMaskedLM"},
    }
    assert type(load(bert, **table)).__name__ == "BertForMaskedLM"


@pytest.mark.parametrize(
    ("name", "arguments", "message", "hint"),
    [
        ("bertt", {}, "no such file", "nothing is downloaded"),
        ("bert", {"num_label": 3}, "BertConfig has no 'num_label'", "did you mean 'num_labels'?"),
        ("bert", {"num_labels": 3}, "'classifier.weight' has shape (2, 16)", ""),
        ("bert", {"architecture": "BertForMaskedLM"}, "its weights lack 'cls.", "fine-tune"),
        ("bert", {"architecture": "os"}, "transformers has no model 'os'", "own code is not run"),
    ],
)
def test_what_transformers_can_not_load_is_an_error(bert, name, arguments, message, hint):
    error = refused(bert, source=f"transformers:{name}", arguments=arguments)
    assert message in str(error)
    assert hint in " ".join(fault.hint for fault in error.faults)


def test_code_in_a_snapshot_is_never_run(bert):
    folder = bert / "hostile"
    folder.mkdir()
    (folder / "config.json").write_text(
        '{"model_type": "theirs", "auto_map": {"AutoConfig": "code.Config"}}'
    )
    (folder / "code.py").write_text(f"open({str(bert / 'executed')!r}, 'w')\n")
    assert "can't read it" in str(refused(bert, source="transformers:hostile"))
    assert not (bert / "executed").exists()


def test_the_key_follows_the_snapshots_content(bert):
    table = Network(source="transformers:bert")
    before = network_key(table, bert)
    path = bert / "bert" / "config.json"
    text = path.read_text()
    path.write_text(text.replace('"hidden_act": "gelu"', '"hidden_act": "relu"'))
    assert network_key(table, bert) != before
    path.write_text(text)
    assert importlib.metadata.version("transformers")


@pytest.fixture
def yolo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("cv2")
    if not has_module("ultralytics"):
        pytest.skip("ultralytics is not installed")
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    return tmp_path


def test_a_yolo_by_its_configuration(yolo):
    module = load(source="ultralytics:yolo11n.yaml", arguments={"nc": 3})
    assert module.model[-1].nc == 3
    assert "can't read 'yolo11q.yaml'" in str(refused(source="ultralytics:yolo11q.yaml"))


def test_the_head_of_a_yolo_does_not_fix_the_size(yolo):
    module = load(source="ultralytics:yolo11n.yaml")
    heads = [part for part in module.modules() if hasattr(part, "anchors")]
    assert heads
    assert all(part.dynamic for part in heads)


class Explodes:
    def __reduce__(self):
        return os.mkdir, (os.environ["EXPLODES"],)


def test_a_yolo_has_the_same_outputs_in_training(yolo):
    module = load(source="ultralytics:yolo11n.yaml", arguments={"nc": 3})
    x = torch.zeros(2, 3, 64, 64)
    trained = copy.deepcopy(module).train()
    head = trained.model[-1]
    assert head.cv2[0][0].bn.training
    before = {name: leaf.shape for name, leaf in named_leaves(module.eval()(x)).items()}
    assert {name: leaf.shape for name, leaf in named_leaves(trained(x)).items()} == before
    assert not head.eval().cv2[0][0].bn.training


def test_a_yolos_checkpoint_is_read_without_unpickling(yolo, monkeypatch):
    monkeypatch.setenv("EXPLODES", str(yolo / "executed"))
    load(source="ultralytics:yolo11n.yaml")  # ultralytics is imported
    from ultralytics.nn.tasks import DetectionModel

    module = DetectionModel("yolo11n.yaml", verbose=False)
    allowed = torch.serialization.get_safe_globals()
    torch.save({"model": module, "ema": None}, yolo / "best.pt")
    loaded = load(yolo, source="ultralytics:./best.pt")
    assert torch.equal(next(loaded.parameters()), next(module.parameters()))
    torch.save({"model": module, "hook": Explodes()}, yolo / "hostile.pt")
    error = refused(yolo, source="ultralytics:./hostile.pt")
    assert "can't read it without unpickling" in str(error)
    assert not (yolo / "executed").exists()
    assert torch.serialization.get_safe_globals() == allowed


def test_a_yolos_configuration_is_not_evaluated(yolo):
    path = yolo / "executed"
    (yolo / "hostile.yaml").write_text(
        f"nc: 3\nactivation: __import__('os').mkdir({str(path)!r})\n"
        "backbone:\n - [-1, 1, Conv, [8, 3, 2]]\nhead:\n - [[0], 1, Detect, [nc]]\n"
    )
    assert "can't be built" in str(refused(yolo, source="ultralytics:./hostile.yaml"))
    assert not path.exists()


@needs("transformers")
def test_the_api_and_a_recipe_name_a_source_alike(bert, tmp_path):
    from edgekd.run.request import make_request

    name = f"transformers:{bert / 'bert'}"
    by_name = make_request(name, {"target": "x86", "out": tmp_path / "a"})
    by_table = make_request({"source": name}, {"target": "x86", "out": tmp_path / "b"})
    assert by_name.recipe.model == by_table.recipe.model
    assert by_name.recipe.model.kind == "transformers"
    local = make_request("their_module:net", {"target": "x86", "out": tmp_path / "c"})
    assert local.recipe.model.factory == "their_module:net"
