"""What a scheme lacks is refused by the plan, before any training: exit code 2, one clear error."""

import re

import pytest
import torch
from classroom import CLASSES, Box, Network, network, scheme, situation, token_network
from small_target import SMALL_TARGET
from torch import nn

from edgekd.data.samples import Data, Samples
from edgekd.errors import InputError
from edgekd.stages.distill.schemes import scheme_of

HINT = {"name": "hint", "student": "stages.1"}
NO_KL = {"losses": ()}
ALONE = ("mutual", "on-the-fly", "own-teacher", "last-epoch", "lwf", "federated")
BLACK_BOX = {"teachers": [Box()]}


def plain(*shape: int) -> nn.Module:
    """A network without blocks and without batch norm."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES)).eval()


def around() -> nn.Module:
    """A network whose input goes around its middle layer."""

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.middle = nn.Linear(64, 64)
            self.last = nn.Linear(64, CLASSES)

        def forward(self, x):
            x = x.flatten(1)
            return self.last(self.middle(x) + x)

    return Around().eval()


def winding() -> nn.Module:
    """A network whose Python looks at the values."""

    class Winding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(64, 4), nn.Linear(4, CLASSES)

        def forward(self, x):
            x = self.first(x.flatten(1))
            return self.last(x if x.sum() > 0 else -x)

    return Winding().eval()


def flat() -> Data:
    part = Samples(torch.randn(12, 5), torch.arange(12) % CLASSES)
    return Data("flat", part, part, part, CLASSES)


def box_of_norms() -> Network:
    return Network(nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, CLASSES)))


REFUSED = [
    ("offline", {}, {"teachers": []}, "there is no teacher"),
    ("offline", {}, {"teaching": {"losses": (HINT,)}, **BLACK_BOX}, "the teacher box is a black"),
    (
        "elastic",
        {},
        {"teachers": [], "teaching": {"label_weight": 0.0}},
        "nothing teaches the whole network",
    ),
    ("multi-teacher", {}, {"teachers": [Box()]}, "found 1 .allowed: at least two"),
    ("ensemble", {"network": "teacher"}, BLACK_BOX, "copies the teacher's structure, but the tea"),
    ("specialists", {}, BLACK_BOX, "trains copies of the teacher, but the teacher box is a black"),
    (
        "specialists",
        {"specialists": 3},
        {},
        "3 groups are too many for 4 classes .allowed: up to 2",
    ),
    ("specialists", {}, {"teaching": {"losses": (HINT,)}}, "'hint' reads layers, but 'speciali"),
    (
        "mutual",
        {},
        {"teaching": {"sample_weights": "disagreement"}},
        "sample_weights: 'mutual' h",
    ),
    ("mutual", {}, {"teaching": {"calibrate_teachers": True}}, "calibrate_teachers: 'mutual' has"),
    ("mutual", {"peers": 0, "with_teacher": False}, {}, "scheme.peers: there are no peers"),
    ("mutual", {}, BLACK_BOX, "trains a copy of the teacher, but the teacher box is a black"),
    ("on-the-fly", {}, {"student": plain()}, "scheme.layer: the network has no sequence of b"),
    ("on-the-fly", {"layer": "stages.9"}, {}, "scheme.layer: no layer 'stages.9'.*did you mean"),
    (
        "on-the-fly",
        {"layer": "stages.1.0.conv1"},
        {},
        "be cut at 'stages.1.0.conv1': '.*bypasses",
    ),
    (
        "on-the-fly",
        {"layer": "middle"},
        {"student": around()},
        "at 'middle': 'flatten' bypasses",
    ),
    ("on-the-fly", {"layer": "first"}, {"student": winding()}, "'first': tracing it fails with: "),
    ("on-the-fly", {}, {"teaching": {"batch_size": 1}}, "batch_size: the gate's batch norm needs"),
    ("born-again", {"first": "teachers"}, {"teachers": []}, "there is no teacher"),
    ("own-teacher", {}, {"student": plain()}, "scheme.layers: the network has no sequence of bl"),
    ("own-teacher", {"layers": ["stage.0"]}, {}, "no layer 'stage.0'.*did you mean 'stages.0'"),
    ("last-epoch", {}, {"teaching": {"label_weight": 0.5}}, "sets the weight of the labels itself"),
    ("last-epoch", {}, {"teaching": {"epochs": 1}}, "a single epoch has no previous epoch"),
    ("progressive", {"assistants": []}, {}, "scheme.assistants: there is no assistant between"),
    (
        "progressive",
        {"assistants": [{"factory": "edgekd.models.resnet:resnet8", "arguments": {"chanels": 1}}]},
        {},
        "assistants.1.*chanels",
    ),
    (
        "progressive",
        {"assistants": [{"factory": "edgekd.models.resnet:resnet8", "arguments": {"channels": 1}}]},
        {},
        r"assistants.1: .* outputs of shape \(1, 10\) .allowed: \(1, 4\)",
    ),
    ("black-box", {"answers": "logits"}, {"teaching": {"losses": (HINT,)}}, "'hint' reads layers"),
    ("black-box", {}, {"teaching": {"losses": ({"name": "kl"},)}}, "labels have no logits to com"),
    ("black-box", {}, {"teaching": {"label_weight": 1.0}}, "leaves nothing for the teacher's"),
    ("black-box", {}, {"teachers": []}, "there is no teacher"),
    ("data-free", {}, BLACK_BOX, "'data-free' sends gradients through the teacher, but the teache"),
    ("data-free", {}, {"teachers": []}, "there is no teacher"),
    ("data-free", {"statistics": 1.0}, {"teachers": [Network(plain())]}, "has no batch norm to"),
    ("deep-inversion", {}, BLACK_BOX, "sends gradients through the teacher, but the teacher box"),
    ("deep-inversion", {}, {"teachers": [Network(plain())]}, "big has no batch norm to take stat"),
    (
        "deep-inversion",
        {},
        {
            "data": flat(),
            "teachers": [box_of_norms()],
            "student": nn.Sequential(nn.Linear(5, CLASSES)).eval(),
        },
        r"makes images, but the samples have shape \(5,\)",
    ),
    ("lwf", {"tasks": [[0, 1, 2, 3]]}, {}, "needs at least two tasks, found 1"),
    ("lwf", {"tasks": [[0, 1], [2, 7]]}, {}, r"tasks.2: there is no class 7 .allowed: 0 to 3"),
    ("lwf", {"tasks": [[0, 1], [1, 2]]}, {}, "tasks.2: class 1 appears twice"),
    ("lwf", {"known": 2}, {}, "scheme.known: all 2 tasks are already known"),
    (
        "dark-experience-replay",
        {},
        {"teaching": {"losses": ({"name": "kl"},)}},
        "losses: 'dark-experience-replay' has its own loss",
    ),
    ("dark-experience-replay", {"tasks": []}, {}, "needs at least two tasks, found 0"),
    (
        "dark-experience-replay",
        {"tasks": [[0], []]},
        {},
        "tasks.2: no training sample belongs to its",
    ),
    ("federated", {"public_share": 0.0}, {}, "scheme.public: there is no public set"),
    (
        "federated",
        {"clients": 1},
        {},
        "scheme.clients: a single client has no others to learn from",
    ),
    ("federated", {"public": {"source": "none.npz"}}, {}, "none.npz: no such file"),
    (
        "federated",
        {"public": {"source": "digits"}, "clients": 60},
        {},
        "client .* gets only [01] samples",
    ),
    (
        "distillation-token",
        {},
        {"student": network()},
        "token: no layer 'distillation_head'",
    ),
    (
        "distillation-token",
        {"token": "blocks"},
        {"student": token_network()},
        "layer 'blocks' g",
    ),
    (
        "distillation-token",
        {},
        {"student": token_network(), "teaching": {"losses": ({"name": "kl"},)}},
        "hard targets are classes",
    ),
    (
        "distillation-token",
        {},
        {"student": token_network(), "teaching": {"label_weight": 1.5}},
        "leaves nothing for the teacher's classes .allowed: at least 0 and below 1",
    ),
    *((name, {}, {"teaching": {"losses": (HINT,)}}, "'hint' reads layers, but") for name in ALONE),
    *((name, {}, {"teaching": NO_KL}, "no loss: .* has nothing to compare") for name in ALONE),
]


@pytest.mark.parametrize(("name", "keys", "changes", "expected"), REFUSED)
def test_what_a_scheme_lacks_is_refused(name, keys, changes, expected, tmp_path):
    changes = dict(changes)
    student = changes.pop("student", None)
    if student is None:
        student = token_network() if name == "distillation-token" else network()
    faults = scheme(name, **keys).check(student, situation(name, tmp_path, **changes))
    told = [f"{fault} -> {fault.hint}" for fault in faults]
    assert any(re.search(expected, line, re.DOTALL) for line in told), told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["last-epoch", "dark-experience-replay", "data-free", "deep-inversion"]
)
def test_several_processes_are_refused_where_one_has_to_know_all(name, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    faults = scheme(name).check(network(), situation(name, tmp_path))
    assert f"'{name}' trains in a single process, but several are running" in str(faults[0])


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ("mutal", "unknown scheme 'mutal'.*did you mean 'mutual'"),
        ({"peers": 2}, "the scheme has no 'name' .allowed: black-box, born-again"),
        ({"name": "mutual", "peer": 2}, "unknown key 'peer'.*did you mean 'peers'"),
        ({"name": "mutual", "peers": -1}, "peers: .*greater than or equal to 0, found -1"),
        ({"name": "multi-teacher", "fusion": "best"}, "fusion: .*'attention', found 'best'"),
        ({"name": "data-free", "std": 0}, "std: .*greater than 0, found 0"),
        ({"name": "last-epoch", "share": 1.5}, "share: .*less than or equal to 1, found 1.5"),
    ],
)
def test_a_wrong_table_is_refused_by_key(wish, expected):
    with pytest.raises(InputError) as caught:
        scheme_of(wish, "stages.1: scheme")
    error = caught.value
    assert re.search(expected, f"{error} -> {error.hint}", re.DOTALL), error
    assert str(error).startswith("stages.1: scheme")


RECIPE = """
[model]
factory = "edgekd.models.{model}"
arguments = {{ channels = 1{arguments} }}
[data]
source = "digits"
limit = 200
[[stages]]
kind = "distill"
{stage}
"""

FROM_THE_COMMAND_LINE = {
    "no peers": ('{ name = "mutual", peers = 0 }', "there are no peers to learn with"),
    "no public set": ('"federated"', "there is no public set"),
    "no tasks": ('"lwf"', "'lwf' needs at least two tasks, found 0"),
    "unknown": ('"mutal"', "did you mean 'mutual'"),
    "one teacher": ('"multi-teacher"', "'multi-teacher' needs at least two teachers, found 1"),
}


@pytest.mark.parametrize("case", FROM_THE_COMMAND_LINE)
def test_the_plan_ends_with_exit_code_2(case, tmp_path, edgekd):
    wish, expected = FROM_THE_COMMAND_LINE[case]
    told = compress(edgekd, tmp_path, f"scheme = {wish}", 2)
    assert expected in told
    assert told.startswith("error: ")
    assert not (tmp_path / "out" / "artifacts").exists()


def test_a_teacher_without_batch_norm_is_refused_for_inversion(tmp_path, edgekd):
    transformer = {"model": "transformer:transformer", "arguments": ", size = 8, width = 8"}
    stage = 'scheme = "deep-inversion"'
    told = compress(edgekd, tmp_path, stage, 2, **transformer)
    assert "has no batch norm to take statistics from" in told
    assert 'hint: use scheme = "data-free"' in told


def test_the_plan_tells_what_a_scheme_costs(tmp_path, edgekd):
    stage = 'epochs = 4\nscheme = { name = "mutual", peers = 2 }'
    told = compress(edgekd, tmp_path, stage, 0, options=["--dry-run"])
    assert "distill: 4 epochs of 180 samples, learning together with 2 peers" in told


def compress(edgekd, tmp_path, stage, code, options=(), **keys):
    """Run `edgekd compress` on a recipe with one stage; what it wrote to stderr."""
    recipe = tmp_path / "r.toml"
    table = {"model": "resnet:resnet8", "arguments": "", **keys}
    recipe.write_text(RECIPE.format(stage=stage, **table))
    target = tmp_path / "small.toml"
    target.write_text(SMALL_TARGET)
    arguments = ("compress", recipe, "--target", target, "--out", tmp_path / "out")
    ended, _, told = edgekd(*arguments, *options)
    assert ended == code, told
    return told
