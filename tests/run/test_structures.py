"""Whole runs of networks with several inputs and outputs, ids among them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import edgekd

VOCABULARY, LENGTH = 50, 8


class Sentence(nn.Module):
    """Ids and a mask in; logits and an embedding out."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, width)
        self.inner = nn.Linear(width, width)
        self.head = nn.Linear(width, 3)
        self.side = nn.Linear(width, 4)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Any]:
        words = torch.relu(self.inner(self.table(ids)))
        if mask is not None:
            words = words * mask.unsqueeze(2)
        mean = words.mean(1)
        return {"loss": None, "logits": self.head(mean), "embedding": torch.tanh(self.side(mean))}


def sentences(count: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCABULARY, (count, LENGTH), generator=generator)
    mask = (torch.arange(LENGTH) < 6).float().expand(count, LENGTH).contiguous()
    small = (ids[:, :6] < VOCABULARY // 3).sum(1)
    return {"ids": ids, "mask": mask}, (small > 1).long() + (small > 2).long()


def compressed(tmp_path: Path, stages: list[dict[str, Any]], target: str = "x86") -> Any:
    torch.manual_seed(0)
    return edgekd.compress(
        Sentence(),
        student=Sentence(32),
        data={"train": sentences(192, 1), "test": sentences(64, 2)},
        target=target,
        stages=stages,
        out=tmp_path / "out",
        quick=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["calibrate", "qat"])
def test_ids_and_a_mask_go_through_every_stage_and_runtime(tmp_path: Path, method: str):
    losses = [{"name": "kl"}, {"name": "cosine", "output": "embedding"}]
    quantize = {"kind": "quantize", "method": method}
    if method == "qat":
        quantize |= {"epochs": 1, "losses": losses}
    report = compressed(
        tmp_path,
        [
            {"kind": "distill", "epochs": 1, "losses": losses},
            {"kind": "prune", "amount": 0.5},
            quantize,
        ],
    )
    files = {artifact.format: artifact for artifact in report.targets[0].artifacts}
    assert set(files) == {"onnx", "tflite", "tvm-so"}
    for artifact in files.values():
        assert artifact.parity is not None
        assert artifact.parity.verdict == "pass", artifact.path
        assert set(artifact.parity.outputs) == {"logits", "embedding"}

    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "out" / files["onnx"].path))
    assert {value.name: value.type for value in session.get_inputs()} == {
        "ids": "tensor(int64)", "mask": "tensor(float)",
    }  # fmt: skip
    assert [value.name for value in session.get_outputs()] == ["logits", "embedding"]
    x, y = sentences(64, 2)
    logits = session.run(["logits"], {name: leaf.numpy() for name, leaf in x.items()})[0]
    assert float((np.argmax(logits, 1) == y.numpy()).mean()) == files["onnx"].accuracy


def test_an_input_that_the_network_does_not_take_is_refused_by_the_plan():
    x, y = sentences(32, 1)
    given = {"ids": x["ids"], "masks": x["mask"]}
    with pytest.raises(edgekd.InputError, match="an input 'masks', which forward") as caught:
        edgekd.plan(
            Sentence(), data={"train": (given, y), "test": (given, y)}, target="x86", stages=[]
        )
    assert len(caught.value.faults) == 1
    assert "did you mean 'mask'?" in caught.value.hint


def test_an_output_of_a_loss_that_is_not_there_is_refused_by_the_plan():
    parts = {"train": sentences(64, 1), "test": sentences(32, 2)}
    losses = [{"name": "cosine", "output": "embeding"}]
    with pytest.raises(edgekd.EdgekdError, match="there is no output 'embeding'"):
        edgekd.plan(
            Sentence(),
            student=Sentence(32),
            data=parts,
            target="x86",
            stages=[{"kind": "distill", "epochs": 1, "losses": losses}],
        )


def f1(outputs: dict[str, Tensor], y: Tensor) -> float:
    found = outputs["logits"].argmax(1)
    hits = float(((found == 1) & (y == 1)).sum())
    return 2 * hits / max(1.0, float((found == 1).sum() + (y == 1).sum()))


def both(outputs: dict[str, Tensor], y: Tensor) -> Tensor:
    rest = outputs["embedding"].square().mean()
    return nn.functional.cross_entropy(outputs["logits"], y) + rest


@pytest.mark.slow
def test_a_task_of_functions_reads_every_output_of_the_deployed_file(tmp_path: Path):
    from edgekd.data.tasks.own import own

    test = sentences(64, 2)
    report = edgekd.compress(
        Sentence(),
        data={"train": sentences(192, 1), "test": test, "task": own(f1, loss=both)},
        target="x86",
        stages=[
            {"kind": "distill", "epochs": 1, "losses": [{"name": "kl", "output": "logits"}]},
            {"kind": "quantize", "method": "calibrate"},
        ],
        out=tmp_path / "out",
        quick=True,
    )
    file = next(each for each in report.targets[0].artifacts if each.format == "onnx")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "out" / file.path))
    arrays = session.run(None, {name: leaf.numpy() for name, leaf in test[0].items()})
    named = dict(zip(["logits", "embedding"], map(torch.from_numpy, arrays), strict=True))
    assert file.accuracy == pytest.approx(f1(named, test[1]))
    assert file.accuracy_ci is not None
    assert file.accuracy_ci[0] <= file.accuracy <= file.accuracy_ci[1]
    assert report.data.metric == "f1"


class Shop(nn.Module):
    """A float input whose first column is an id, as tables come; the rest is measured."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(200, 8)
        self.inner = nn.Linear(13, 32)
        self.outer = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        shop = self.table(x[:, :1].long()).squeeze(1)
        return self.outer(torch.relu(self.inner(torch.cat([shop, x[:, 1:]], 1))))


class Interactions(nn.Module):
    """DLRM in small (Naumov et al. 2019): products of embeddings and dense features."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, 8) for size in (60, 40))
        self.bottom = nn.Sequential(nn.Linear(5, 8), nn.ReLU())
        self.top = nn.Linear(11, 4)

    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        low = self.bottom(dense)
        rows = [table(ids[:, number]) for number, table in enumerate(self.tables)]
        stacked = torch.stack([low, *rows], 1)
        dots = torch.bmm(stacked, stacked.transpose(1, 2)).flatten(1)[:, [1, 2, 5]]
        return self.top(torch.cat([low, dots], 1))


def tables(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    ids = torch.randint(0, 200, (count, 1), generator=generator)
    return torch.cat([ids.float(), torch.randn(count, 5, generator=generator)], 1)


def clicks(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    ids = torch.stack([torch.randint(0, n, (count,), generator=generator) for n in (60, 40)], 1)
    return torch.randn(count, 5, generator=generator), ids


@pytest.mark.slow
@pytest.mark.parametrize(("network", "draw"), [(Shop, tables), (Interactions, clicks)])
def test_embeddings_beside_measured_features_keep_their_ids(
    tmp_path: Path, network: Any, draw: Any
):
    torch.manual_seed(0)
    module = network().eval()
    parts = {}
    for part, count in (("train", 128), ("test", 64)):
        x = draw(count)
        with torch.no_grad():
            y = module(*(x if isinstance(x, tuple) else (x,))).argmax(1)
        parts[part] = (x, y)
    report = edgekd.compress(
        module,
        data={**parts, "classes": 4},
        target="x86",
        stages=[{"kind": "quantize", "method": "calibrate"}],
        out=tmp_path / "out",
        quick=True,
    )
    files = {each.format: each for each in report.targets[0].artifacts}
    for format in ("onnx", "tflite"):
        parity = files[format].parity
        assert parity is not None
        assert parity.verdict == "pass", format
        assert (files[format].accuracy or 0.0) > 0.9
