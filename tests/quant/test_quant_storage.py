"""A quantized graph that was written and read back."""

import zipfile

import pytest
import torch
from torch import nn

from edgekd.errors import InputError
from edgekd.quant.calibration import calibrate
from edgekd.quant.inspection import float_islands, output_scale
from edgekd.quant.storage import example_of, load_graph, save_graph
from edgekd.values.target import Scheme
from edgekd.values.tree import rows


@pytest.fixture(scope="module")
def path(int8, tmp_path_factory):
    path = tmp_path_factory.mktemp("stored") / "graph.pt2"
    save_graph(int8, path)
    return path


def test_a_graph_comes_back_equal_to_the_bit(int8, samples, path):
    restored = load_graph(path)
    with torch.no_grad():
        for batch in (1, 2, 32):
            assert torch.equal(restored(samples[:batch]), int8(samples[:batch]))


def test_its_integers_come_back_equal(int8, path):
    def stored(graph):
        state = graph.state_dict().values()
        return sorted((v.tolist() for v in state if v.dtype is torch.int8), key=str)

    assert len(stored(int8)) == 10
    assert stored(load_graph(path)) == stored(int8)


def test_a_restored_graph_is_understood_as_before(int8, path):
    restored = load_graph(path)
    assert output_scale(restored) == output_scale(int8)
    assert float_islands(restored) == []
    assert tuple(example_of(restored).shape) == (2, 1, 8, 8)


def test_a_restored_graph_can_be_stored_again(int8, samples, path, tmp_path):
    save_graph(load_graph(path), tmp_path / "again.pt2")
    with torch.no_grad():
        assert torch.equal(load_graph(tmp_path / "again.pt2")(samples), int8(samples))


def test_nothing_is_left_beside_the_file_and_no_path_is_in_it(path):
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    content = path.read_bytes()
    assert b"site-packages" not in content
    assert str(path.parent).encode() not in content
    assert {name.partition("/")[0] for name in zipfile.ZipFile(path).namelist()} == {"archive"}


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_one_clear_error(path, tmp_path, share):
    content = path.read_bytes()
    damaged = tmp_path / "graph.pt2"
    damaged.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError) as caught:
        load_graph(damaged)
    assert caught.value.where == str(damaged)


def test_a_missing_file_is_one_clear_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_graph(tmp_path / "graph.pt2")


def test_a_float_program_is_no_quantized_graph(tmp_path):
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(
        nn.Linear(3, 2), (torch.rand(2, 3),), dynamic_shapes=({0: batch},)
    )
    torch.export.save(program, tmp_path / "float.pt2")
    with pytest.raises(InputError, match="not a quantized graph"):
        load_graph(tmp_path / "float.pt2")


def test_a_graph_with_several_inputs_and_outputs_comes_back(tmp_path):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.inner = nn.Embedding(20, 4), nn.Linear(7, 5)

        def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            both = torch.cat([self.table(inputs["ids"]), inputs["x"]], 1)
            return {"logits": self.inner(both), "double": inputs["x"] * 2}

    torch.manual_seed(0)
    x = {"ids": torch.arange(8) % 20, "x": torch.randn(8, 3)}
    graph = calibrate(Two().eval(), rows(x, slice(0, 1)), x, Scheme(activations="int8-affine"))
    save_graph(graph, tmp_path / "two.pt2")
    restored = load_graph(tmp_path / "two.pt2")
    with torch.no_grad():
        expected, found = graph(x), restored(x)
    assert list(found) == ["logits", "double"]
    assert all(torch.equal(expected[name], found[name]) for name in found)
    assert example_of(restored)["ids"].dtype == torch.int64
