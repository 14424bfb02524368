import random
import zipfile

import pytest
import torch
from torch import nn

from edgekd.errors import InputError
from edgekd.formats.program import read_program


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    torch.export.save(torch.export.export(model.eval(), (torch.zeros(1, 3, 4, 4),)), path)
    return path.read_bytes()


def test_operators_parameters_and_shapes_are_read_without_unpickling(tmp_path, content):
    path = tmp_path / "model.pt2"
    path.write_bytes(content)
    graph = read_program(path)
    assert graph.ops[0].op == "aten.conv2d.default"
    # weights 108 + 4, batch norm 4 x 4 floats and its int64 counter, linear 80 + 5
    assert graph.parameter_bytes == 4 * (108 + 4 + 16 + 80 + 5) + 8
    assert [graph.tensors[key].shape for key in graph.inputs] == [(1, 3, 4, 4)]
    assert [graph.tensors[key].shape for key in graph.outputs] == [(1, 5)]


def test_a_zip_without_a_model_is_refused(tmp_path):
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"cos\nsystem\n(S'echo no'\ntR.")
    with pytest.raises(InputError, match=r"it has no model\.json"):
        read_program(path)


def test_truncations_and_mutations_end_in_an_input_error_or_in_a_graph(tmp_path, content):
    path = tmp_path / "model.pt2"
    dice = random.Random(3)
    refused = 0
    for turn in range(300):
        mutant = bytearray(content[: dice.randrange(1, len(content))] if turn % 4 == 0 else content)
        for _ in range(20 if turn % 4 else 0):
            mutant[dice.randrange(len(mutant))] = dice.randrange(256)
        path.write_bytes(mutant)
        try:
            read_program(path)
        except InputError:
            refused += 1
    assert refused > 150
