"""The prune stage on scikit-learn's digits: smaller, right, resumable, and clear about faults."""

from pathlib import Path
from typing import Any

import pytest
import torch
from taught_digits import teacher
from torch import Tensor, nn

import edgekd.stages.prune.recovery as recovery_module
from edgekd.data.samples import Data
from edgekd.errors import InputError
from edgekd.models.resnet import resnet8, resnet20
from edgekd.models.transformer import transformer
from edgekd.network.cost import parameter_count, totals
from edgekd.network.evaluation import evaluate
from edgekd.stages import Context
from edgekd.stages.prune import Prune
from edgekd.stages.prune.weights import block_scores, fits_pattern
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target

CRITERIA = ["magnitude-l1", "magnitude-l2", "taylor", "movement", "soft-movement",
            "distance-moved", "bn-scale", "activation-energy"]  # fmt: skip


def context_of(data: Data, module: nn.Module, work: Path, multiple: int = 4) -> Context:
    target = load_target("x86").model_copy(update={"channel_multiple": multiple})
    return Context(target, data, [teacher(module)], work)


def stage(**keys: Any) -> Prune:
    return Prune(**{"batch_size": 32, "learning_rate": 1e-3, "epochs": 1, **keys})


def faults(stage: Prune, module: nn.Module, data: Data, form: Any = "float") -> list[str]:
    context = context_of(data, module, Path("unused"))
    found = stage.check(Candidate(module, data.example, form), context, "stages.1")
    return [f"{fault} [{fault.hint}]" for fault in found]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_removes_channels_and_recovers(
    criterion: str, data: Data, trained: nn.Module, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    candidate = Candidate(trained, data.example)
    pruning = stage(criterion=criterion, amount=0.5, epochs=2)
    context = context_of(data, trained, tmp_path)
    assert pruning.check(candidate, context, "stages.1") == []
    result = pruning.run(candidate, context)
    first, last = totals(trained, data.example), totals(result.module, data.example)
    assert last.macs < 0.5 * first.macs
    assert result.module.get_submodule("stem.0").out_channels == 8
    assert evaluate(result.module, data.test) > 0.5
    assert f"{first.parameters:,} -> {last.parameters:,} parameters" in result.lineage[-1]
    assert "stem.0 16->8" in result.lineage[-1]
    assert all(torch.equal(before[name], value) for name, value in trained.state_dict().items())


@pytest.mark.parametrize("allocation", ["uniform", "global", "sensitivity", "cost"])
def test_a_budget_is_met_and_channels_are_multiples(
    allocation: str, data: Data, trained: nn.Module, tmp_path: Path
) -> None:
    pruning = stage(criterion="taylor", budget=0.5, allocation=allocation, epochs=0)
    result = pruning.run(
        Candidate(trained, data.example), context_of(data, trained, tmp_path, multiple=8)
    )
    share = totals(result.module, data.example).macs / totals(trained, data.example).macs
    assert 0.3 < share <= 0.5
    counts = [m.out_channels for m in result.module.modules() if isinstance(m, nn.Conv2d)]
    assert all(count % 8 == 0 for count in counts)


def test_a_budget_of_parameters_is_met(data: Data, trained: nn.Module, tmp_path: Path) -> None:
    pruning = stage(budget=0.4, of="parameters", allocation="cost", epochs=0)
    result = pruning.run(Candidate(trained, data.example), context_of(data, trained, tmp_path))
    share = parameter_count(result.module) / parameter_count(trained)
    assert 0.33 < share <= 0.4


def test_ignored_layers_keep_their_channels(data: Data, trained: nn.Module, tmp_path: Path) -> None:
    pruning = stage(amount=0.5, ignore=("stages.2",), epochs=0)
    result = pruning.run(Candidate(trained, data.example), context_of(data, trained, tmp_path))
    assert result.module.get_submodule("stages.2.0.conv1").out_channels == 64
    assert result.module.get_submodule("stages.1.0.conv1").out_channels == 16


def test_a_killed_run_goes_on_to_the_same_result(
    data: Data, trained: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruning = stage(criterion="taylor", amount=0.6, ramp="cubic", steps=2, epochs=2)
    candidate = Candidate(trained, data.example)
    whole = pruning.run(candidate, context_of(data, trained, tmp_path / "a"))
    taught = recovery_module.teach
    calls = []

    def killed(*arguments: Any, **keys: Any) -> nn.Module:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return taught(*arguments, **keys)

    monkeypatch.setattr(recovery_module, "teach", killed)
    with pytest.raises(KeyboardInterrupt):
        pruning.run(candidate, context_of(data, trained, tmp_path / "b"))
    resumed = pruning.run(candidate, context_of(data, trained, tmp_path / "b"))
    assert len(calls) == 3  # the first step was not taught again
    for name, value in whole.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[name]), name


@pytest.mark.parametrize(("criterion", "epochs"), [("magnitude-l1", 2), ("movement", 3)])
def test_zeros_stay_zeros_through_recovery(
    criterion: str, epochs: int, data: Data, trained: nn.Module, tmp_path: Path
) -> None:
    pruning = stage(criterion=criterion, granularity="weights", amount=0.6, epochs=epochs)
    result = pruning.run(Candidate(trained, data.example), context_of(data, trained, tmp_path))
    for part in result.module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            assert float((part.weight == 0).double().mean()) == pytest.approx(0.6, abs=0.01)
    assert "60.0% zeros in 10 kernels" in result.lineage[-1]
    assert evaluate(result.module, data.test) > 0.5


@pytest.mark.parametrize("criterion", ["taylor", "movement"])
def test_two_of_four_is_in_the_result(
    criterion: str, data: Data, trained: nn.Module, tmp_path: Path
) -> None:
    pruning = stage(criterion=criterion, granularity="2:4", ignore=("stem",), epochs=2)
    result = pruning.run(Candidate(trained, data.example), context_of(data, trained, tmp_path))
    assert fits_pattern(result.module.get_parameter("stages.2.0.conv2.weight"), 2, 4)
    assert not fits_pattern(trained.get_parameter("stages.2.0.conv2.weight"), 2, 4)
    assert "2:4 verified in 9 layers" in result.lineage[-1]


def test_heads_are_removed_from_a_transformer(data: Data, tmp_path: Path) -> None:
    module = transformer(size=8, patch=2, width=16, depth=1, heads=4).eval()
    pruning = stage(criterion="taylor", granularity="heads", amount=0.5, epochs=1)
    result = pruning.run(Candidate(module, data.example), context_of(data, module, tmp_path))
    attention = result.module.get_submodule("blocks.0.attention")
    assert (attention.heads, attention.head_size) == (2, 4)
    assert "blocks.0.attention.query 16->8" in result.lineage[-1]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_prunes_a_transformer_where_it_makes_sense(
    criterion: str, data: Data, tmp_path: Path
) -> None:
    """Heads, then neurons: each really smaller; layer norms have no scale of a head or neuron."""
    torch.manual_seed(0)
    module: nn.Module = transformer(size=8, patch=4, width=16, depth=1, heads=4).eval()
    for granularity, layer, before in (("heads", "attention.query", 16), ("neurons", "expand", 32)):
        pruning = stage(criterion=criterion, granularity=granularity, amount=0.5, samples=64)
        context = context_of(data, module, tmp_path)
        candidate = Candidate(module, data.example)
        found = pruning.check(candidate, context, "stages.1")
        if criterion == "bn-scale":
            assert f"no {granularity} can be pruned: " in str(found[0])
            assert "it is not followed by a normalization layer whose scale" in str(found[0])
            assert found[0].hint == "'edgekd methods criterion' lists other criteria"
            continue
        assert found == []
        result = pruning.run(candidate, context)
        assert result.module.get_submodule(f"blocks.0.{layer}").out_features == before // 2
        assert f"blocks.0.{layer} {before}->{before // 2}" in result.lineage[-1]
        module = result.module


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_removes_a_block(criterion: str, data: Data, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = resnet20(channels=1).eval()
    keys = {"criterion": criterion, "granularity": "blocks", "samples": 64, "epochs": 0}
    pruning = stage(**keys, amount=0.3, score_epochs=1, batch_size=64)
    context, candidate = context_of(data, module, tmp_path), Candidate(module, data.example)
    assert pruning.check(candidate, context, "stages.1") == []
    result = pruning.run(candidate, context)
    gone = [n for n, part in result.module.named_modules() if isinstance(part, nn.Identity)]
    lost = set(gone) - {n for n, part in module.named_modules() if isinstance(part, nn.Identity)}
    assert len(lost) == 3  # a third of three, of two and of two, rounded
    assert all(f"{name} removed" in result.lineage[-1] for name in lost)
    assert totals(result.module, data.example).macs < 0.75 * totals(module, data.example).macs


def test_blocks_go_down_to_a_budget_by_sensitivity(data: Data, tmp_path: Path) -> None:
    module = resnet20(channels=1).eval()
    keys = {"granularity": "blocks", "allocation": "sensitivity", "epochs": 0}
    pruning = stage(criterion="magnitude-l1", budget=0.6, **keys)
    context, candidate = context_of(data, module, tmp_path), Candidate(module, data.example)
    assert pruning.check(candidate, context, "stages.1") == []
    share = totals(pruning.run(candidate, context).module, data.example).macs
    assert 0.4 < share / totals(module, data.example).macs <= 0.6


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize("criterion", ["magnitude-l1", "movement"])
def test_blocks_of_weights_are_zero_together(
    criterion: str, allocation: str, data: Data, trained: nn.Module, tmp_path: Path
) -> None:
    keys = {"granularity": "4x4", "allocation": allocation, "ignore": ("stem", "classifier")}
    pruning = stage(criterion=criterion, amount=0.5, epochs=2, **keys)
    context, candidate = context_of(data, trained, tmp_path), Candidate(trained, data.example)
    assert pruning.check(candidate, context, "stages.1") == []
    result = pruning.run(candidate, context)
    weight = result.module.get_parameter("stages.2.0.conv2.weight")
    zeros = block_scores((weight == 0).double(), 4, 4)
    assert set(zeros.unique().tolist()) == {0.0, 16.0}
    assert "blocks of 4x4" in result.lineage[-1]
    assert "50.0% zeros in 8 kernels" in result.lineage[-1]


def test_movement_of_channels_is_resumed_and_meets_a_budget(
    data: Data, trained: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruning = stage(criterion="movement", budget=0.5, epochs=3)
    candidate = Candidate(trained, data.example)
    whole = pruning.run(candidate, context_of(data, trained, tmp_path / "a"))
    share = totals(whole.module, data.example).macs / totals(trained, data.example).macs
    assert 0.3 < share <= 0.5
    taught, calls = recovery_module.teach, []

    def killed(*arguments: Any, **keys: Any) -> nn.Module:
        calls.append(arguments[1].work.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return taught(*arguments, **keys)

    monkeypatch.setattr(recovery_module, "teach", killed)
    with pytest.raises(KeyboardInterrupt):
        pruning.run(candidate, context_of(data, trained, tmp_path / "b"))
    resumed = pruning.run(candidate, context_of(data, trained, tmp_path / "b"))
    assert calls == ["moving", "recovery", "recovery"]
    for name, value in whole.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[name]), name


def test_an_exported_program_gets_zeros_and_every_other_pruning_is_refused(
    data: Data, tmp_path: Path
) -> None:
    module = resnet8(channels=1).eval()
    batch = torch.export.Dim("batch", min=1, max=4096)
    pair = torch.cat([data.example, data.example])
    program = torch.export.export(module, (pair,), dynamic_shapes=({0: batch},))
    graph = program.module(check_guards=False)
    context, candidate = context_of(data, module, tmp_path), Candidate(graph, data.example)
    for criterion in ("magnitude-l1", "taylor"):
        pruning = stage(criterion=criterion, granularity="weights", amount=0.5, epochs=0)
        assert pruning.check(candidate, context, "stages.1") == []
        assert "50.0% zeros in 10 kernels" in pruning.run(candidate, context).lineage[-1]
    for keys, message in (
        ({"granularity": "blocks"}, "an exported program can't be pruned"),
        ({"granularity": "channels"}, "its layers and shapes are fixed"),
        ({"granularity": "weights", "criterion": "movement"}, "an exported program has none"),
    ):
        (fault,) = faults(stage(amount=0.5, **keys), graph, data)
        assert message in fault
        assert "give the model as factory and weights" in fault


FAULTS = {
    "there is no residual block": {
        "amount": 0.5, "granularity": "blocks", "ignore": ("stages.0.0",)},
    "removes none of 1 blocks": {"amount": 0.3, "granularity": "blocks"},
    "without any of its 1 removable blocks it still has": {"budget": 0.1, "granularity": "blocks"},
    "there are no neurons to remove": {"amount": 0.5, "granularity": "neurons"},
    "'stem.0': it has 16 outputs and 1 inputs, which blocks of 4x4 don't divide": {
        "amount": 0.5, "granularity": "4x4", "ignore": ("stages", "classifier")},
    "1x1 is not a block": {"amount": 0.5, "granularity": "1x1"},
    "'movement' prunes during training": {
        "amount": 0.5, "criterion": "movement", "epochs": 0},
    "so sensitivity can't be measured": {
        "amount": 0.5, "criterion": "soft-movement", "allocation": "sensitivity"},
    "the cost does not decide between blocks": {
        "amount": 0.5, "granularity": "blocks", "allocation": "cost"},
    "parameters is out of reach": {"budget": 0.001, "of": "parameters"},
    "amount of 0.99 leaves no channel in 'stem.0'": {"amount": 0.99},
    "amount = 0.04 is the least that removes something": {"amount": 0.01},
    "no layer 'stem.O'": {"amount": 0.5, "ignore": ("stem.O",)},
    "did you mean 'taylor'?": {"amount": 0.5, "criterion": "tailor"},
    "unknown key 'speed'": {"amount": 0.5, "criterion": {"name": "movement", "speed": 1}},
    "out of reach": {"budget": 0.001},
    "no heads to remove": {"amount": 0.5, "granularity": "heads"},
    "'stem.0': it has 1 input channels per filter, which is not divisible by 4": {
        "granularity": "2:4", "ignore": ("stages", "classifier")},
    "prunes nothing or everything": {"granularity": "4:4"},
    "scores channels, not single weights": {
        "amount": 0.5, "granularity": "weights", "criterion": "bn-scale"},
    "during training, but epochs is 0": {
        "amount": 0.5, "granularity": "weights", "criterion": "movement", "epochs": 0},
}  # fmt: skip


@pytest.mark.parametrize("message", FAULTS)
def test_what_cannot_work_is_said_before_anything_is_trained(message: str, data: Data) -> None:
    found = faults(stage(**FAULTS[message]), resnet8(channels=1).eval(), data)
    assert any(message in fault for fault in found), found


def test_an_amount_too_small_for_the_targets_multiple_is_refused(data: Data) -> None:
    module = resnet8(channels=1).eval()
    context = context_of(data, module, Path("unused"), multiple=64)
    candidate = Candidate(module, data.example)
    (fault,) = stage(amount=0.3).check(candidate, context, "stages.1")
    assert fault.message == (
        "an amount of 0.3 removes nothing: each layer has at most 64, and channels are removed in "
        "multiples of 64, as the target requires"
    )
    assert fault.hint == "a target file with a smaller channel_multiple removes fewer at a time"


def test_a_quantized_or_exported_model_is_refused(data: Data) -> None:
    module = resnet8(channels=1).eval()
    (fault,) = faults(stage(amount=0.5), module, data, "int8")
    assert "a quantized model can't be pruned [put this stage before the quantize" in fault
    graph = torch.export.export(module, (data.example,)).module()
    (fault,) = faults(stage(amount=0.5), graph, data)
    assert "an exported program can't be pruned" in fault


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"amount": 1.0}, "leaves no channel"),
        ({"amount": 0.0}, "removes nothing"),
        ({}, "either 'amount' or 'budget'"),
        ({"amount": 0.5, "budget": 0.5}, "either 'amount' or 'budget'"),
        ({"granularity": "2:4", "amount": 0.5}, "the pattern 2:4 already sets the amount"),
        ({"granularity": "weights", "budget": 0.5}, "zeros save no MACs"),
    ],
)
def test_goals_that_contradict_each_other_are_refused(keys: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stage(**keys)


class Fixed(nn.Module):
    """Its reshapes fix the width of every layer but those of `free`."""

    def __init__(self, fixed: int, free: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(1, 8, 1) for _ in range(fixed))
        self.free = nn.Sequential(nn.Conv2d(1, 16, 1), nn.Conv2d(16, 8, 1)) if free else None
        self.classifier = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        whole = sum(conv(x).reshape(-1, 8, 64).mean(2).amax(1, keepdim=True) for conv in self.convs)
        first = self.convs[0](x) if self.free is None else self.free(x)
        out: Tensor = self.classifier(first.reshape(-1, 8, 64).mean(2)) + whole
        return out


def test_a_network_of_which_nothing_can_be_cut_is_refused_with_the_reasons(data: Data) -> None:
    (fault,) = faults(stage(amount=0.5), Fixed(1, free=False).eval(), data)
    assert "no channels can be pruned: 'convs.0': their max is taken" in fault
    assert "[granularity = 'weights' sets single weights to zero]" in fault


def test_layers_that_cannot_be_cut_stay_and_are_named_by_reason(data: Data, tmp_path: Path) -> None:
    module = Fixed(6, free=True).eval()
    context, candidate = context_of(data, module, tmp_path), Candidate(module, data.example)
    pruning = stage(amount=0.5, epochs=0)
    assert pruning.check(candidate, context, "stages.1") == []
    result = pruning.run(candidate, context)
    assert pruning.rehearse(candidate, context).notes == result.notes
    (note,) = result.notes
    # Six layers of 16 parameters and one of 136, of 96 + 32 + 136 + 90 in all.
    assert note == (
        "7 layers (66% of the parameters) are not pruned: 'convs.0', 'convs.1', 'convs.2', "
        "'convs.3' and 2 more: their max is taken; 'free.1': the network does not run without "
        "these channels: shape '[-1, 8, 64]' is invalid for input of size 256"
    )
    assert result.module.get_parameter("free.0.weight").shape == (8, 1, 1, 1)
    assert result.module.get_parameter("convs.0.weight").shape == (8, 1, 1, 1)


def test_pruning_that_reaches_less_than_the_recipes_share_is_refused(data: Data) -> None:
    module = Fixed(6, free=True).eval()
    (fault,) = faults(stage(amount=0.5, least=0.9), module, data)
    assert "prune could touch " in fault
    assert "convs.0 (their max is taken, 4%)" in fault
    assert "'ignore'" in fault
    assert faults(stage(amount=0.5, least=0.2), module, data) == []


def test_layers_that_a_pattern_does_not_fit_stay_and_are_named(
    data: Data, trained: nn.Module, tmp_path: Path
) -> None:
    pruning = stage(criterion="magnitude-l1", granularity="2:4", epochs=0)
    context, candidate = context_of(data, trained, tmp_path), Candidate(trained, data.example)
    assert pruning.check(candidate, context, "stages.1") == []
    result = pruning.run(candidate, context)
    assert result.notes == (
        "1 layer (0% of the parameters) is not pruned: 'stem.0': it has 1 input channels per "
        "filter, which is not divisible by 4",
    )
    assert torch.equal(
        result.module.get_parameter("stem.0.weight"), trained.get_parameter("stem.0.weight")
    )


def test_channels_without_a_norm_stay_where_the_criterion_reads_norms(
    data: Data, tmp_path: Path
) -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 10)
    ).eval()
    pruning = stage(criterion="bn-scale", amount=0.5, epochs=0)
    context, candidate = context_of(data, module, tmp_path), Candidate(module, data.example)
    assert pruning.check(candidate, context, "stages.1") == []
    result = pruning.run(candidate, context)
    assert pruning.rehearse(candidate, context).notes == result.notes
    assert "1 layer (30% of the parameters) is not pruned: '2': it is not followed by" in str(
        result.notes
    )
    assert [result.module.get_submodule(name).out_channels for name in "02"] == [4, 8]


def test_a_result_that_violates_the_pattern_is_an_internal_error() -> None:
    with pytest.raises(InputError, match="unknown criterion"):
        stage(amount=0.5, criterion="random")._criterion("here")
