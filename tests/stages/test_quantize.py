"""The quantize stage on scikit-learn's digits."""

import copy
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from taught_digits import teach_digits, teacher
from torch import Tensor, fx, nn

from edgekd.data.samples import Data, Samples
from edgekd.errors import ToolError
from edgekd.network.evaluation import evaluate, predict
from edgekd.quant import qat
from edgekd.quant.export import export_graph
from edgekd.quant.weight_only import stored_weights
from edgekd.stages import Context
from edgekd.stages import _float_graph as stage_module
from edgekd.stages._automatic import _ladder
from edgekd.stages.cluster import Cluster
from edgekd.stages.quantize import Quantize
from edgekd.values.candidate import Candidate
from edgekd.values.target import Scheme, load_target


@pytest.fixture(scope="module")
def trained(data: Data, tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    return teach_digits(data, tmp_path_factory.mktemp("fit"), widths=(8, 16, 16))


def context_of(data: Data, module: nn.Module, work: Path, **changes: Any) -> Context:
    target = load_target("x86").model_copy(update=changes)
    return Context(target, data, [teacher(module)], work, calibration=data.train.x[:64])


def ran(data: Data, module: nn.Module, work: Path, **keys: Any) -> Candidate:
    stage, context = Quantize(**keys), context_of(data, module, work)
    candidate = Candidate(module, data.example)
    assert stage.check(candidate, context, "stages.1") == []
    return stage.run(candidate, context)


@pytest.fixture(scope="module")
def calibrated(
    data: Data, trained: nn.Module, tmp_path_factory: pytest.TempPathFactory
) -> Candidate:
    return ran(data, trained, tmp_path_factory.mktemp("calibrate"))


TAUGHT = {"method": "qat", "epochs": 1, "batch_size": 32, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def taught(data: Data, trained: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    return ran(data, trained, tmp_path_factory.mktemp("qat"), **TAUGHT)


def weights(candidate: Candidate) -> list[Tensor]:
    graph = candidate.module
    assert isinstance(graph, fx.GraphModule)
    return [v for v in graph.buffers() if v.dtype is torch.int8 and v.dim() > 1]


def faults(
    data: Data, module: nn.Module, form: Any = "float", keys: Any = None, **changes: Any
) -> list[str]:
    candidate = Candidate(module, data.example, form)
    context = context_of(data, module, Path("unused"), **changes)
    found = Quantize(**(keys or {})).check(candidate, context, "stages.1")
    assert all(fault.where == "stages.1" for fault in found)
    return [str(fault) for fault in found]


@pytest.mark.parametrize("form", ["int8", "fp16"])
def test_a_model_is_not_quantized_twice(form: str, data: Data, trained: nn.Module) -> None:
    (fault,) = faults(data, trained, form)
    assert f"the model is already quantized ({form})" in fault


def test_a_model_without_layers_has_nothing_to_quantize(data: Data) -> None:
    (fault,) = faults(data, nn.Sequential(nn.Flatten(), nn.ReLU()))
    assert "no layer can be quantized" in fault
    assert "aten.conv2d" in fault


def test_an_operator_that_the_target_lacks_is_refused_by_name(
    data: Data, trained: nn.Module
) -> None:
    found = faults(data, trained, unsupported_ops=("aten.adaptive_avg_pool2d",))
    assert len(found) == 1
    assert "layer 'pool' needs aten.adaptive_avg_pool2d, which this target can't run" in found[0]


def test_a_weight_that_is_not_finite_is_refused_by_name(data: Data) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    module[1].weight.data[0, 0] = torch.nan
    (fault,) = faults(data, module)
    assert "'1.weight' has NaN or infinite values" in fault


def test_a_weight_beyond_what_fp16_holds_is_refused(data: Data) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    module[1].weight.data[0, 0] = 70_000.0
    (fault,) = faults(data, module, keys={"dtype": "fp16"})
    assert "'1.weight' has values beyond 65504, which fp16 can't hold" in fault


def test_training_without_a_teacher_is_refused(data: Data, trained: nn.Module) -> None:
    context = Context(load_target("x86"), data, [], Path("unused"))
    candidate = Candidate(trained, data.example)
    found = Quantize(method="qat").check(candidate, context, "stages.1")
    assert ["there is no teacher" in str(fault) for fault in found] == [True]
    assert Quantize().check(candidate, context, "stages.1") == []


def test_calibration_keeps_the_accuracy(
    data: Data, trained: nn.Module, calibrated: Candidate
) -> None:
    before, after = evaluate(trained, data.test), evaluate(calibrated.module, data.test)
    assert before > 0.85
    assert after > before - 0.02
    assert calibrated.form == "int8"
    assert calibrated.lineage == (
        "quantize: int8 uint8-affine, 7-bit weights per channel by calibrate on 64 samples",
    )


def test_training_for_an_epoch_keeps_the_accuracy(
    data: Data, trained: nn.Module, taught: Candidate
) -> None:
    before, after = evaluate(trained, data.test), evaluate(taught.module, data.test)
    assert after > before - 0.02
    assert "by qat on 64 samples" in taught.lineage[-1]


def test_training_changes_the_integers(calibrated: Candidate, taught: Candidate) -> None:
    pairs = zip(weights(calibrated), weights(taught), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", ["calibrated", "taught"])
def test_seven_bit_weights_lie_between_minus_63_and_63(
    name: str, request: pytest.FixtureRequest
) -> None:
    found = weights(request.getfixturevalue(name))
    assert len(found) == 10
    assert max(int(one.int().abs().max()) for one in found) == 63


@pytest.mark.parametrize("name", ["calibrated", "taught"])
def test_two_runs_give_equal_outputs(
    name: str,
    data: Data,
    trained: nn.Module,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    again = ran(data, trained, tmp_path, **(TAUGHT if name == "taught" else {}))
    first = predict(request.getfixturevalue(name).module, data.test.x)
    assert torch.equal(predict(again.module, data.test.x), first)


def test_the_float_model_is_left_as_it_was(data: Data, trained: nn.Module, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    ran(data, trained, tmp_path)
    assert all(torch.equal(before[name], value) for name, value in trained.state_dict().items())


def test_fp16_keeps_the_module_and_marks_it(data: Data, trained: nn.Module, tmp_path: Path) -> None:
    result = ran(data, trained, tmp_path, dtype="fp16")
    assert (result.form, result.module is trained) == ("fp16", True)
    assert result.lineage == ("quantize: fp16",)


def test_auto_is_the_int8_graph_that_asks_for_fp16_and_fp32_beside_it(
    data: Data, trained: nn.Module, calibrated: Candidate, tmp_path: Path
) -> None:
    found = ran(data, trained, tmp_path, dtype="auto")
    assert (found.form, found.also) == ("int8", ("fp16", "float"))
    assert torch.equal(found.module(data.test.x[:16]), calibrated.module(data.test.x[:16]))
    cost = Quantize(dtype="auto").cost(context_of(data, trained, tmp_path))
    assert cost.endswith("; beside it fp16 and fp32, to choose by measuring")


def test_auto_leaves_out_fp16_where_it_cant_hold_the_weights(
    data: Data, trained: nn.Module, tmp_path: Path
) -> None:
    module = copy.deepcopy(trained)
    with torch.no_grad():
        next(module.parameters()).view(-1)[0] = 1e5
    found = ran(data, module, tmp_path, dtype="auto")
    assert found.also == ("float",)
    assert found.notes[-1].startswith("fp16 is not compared: '")


def test_auto_has_nothing_to_compare_with_strict(
    data: Data, trained: nn.Module, tmp_path: Path
) -> None:
    stage = Quantize(dtype="auto", strict=True)
    candidate = Candidate(trained, data.example)
    (fault,) = stage.check(candidate, context_of(data, trained, tmp_path), "stages.1")
    assert fault.where == "stages.1.strict"
    assert "auto compares with files that are all float" in fault.message


def test_the_plan_says_what_it_will_cost(data: Data, trained: nn.Module) -> None:
    context = context_of(data, trained, Path("unused"))
    start = "int8 (uint8-affine, 7-bit weights per channel), ranges calibrated on 64 samples"
    assert Quantize().cost(context) == start
    expected = f"{start}, then 2 epochs of {len(data.train):,} samples"
    assert Quantize(method="qat", epochs=2).cost(context) == expected
    assert Quantize(dtype="fp16").cost(context) == "fp16, without training"


@pytest.mark.slow
@pytest.mark.parametrize(
    "made",
    [
        Quantize(dtype="int4", method="qat", epochs=2, batch_size=32),
        Quantize(dtype="int4", method="lsq", epochs=2, batch_size=32),
        Quantize(method="lsq", epochs=2, batch_size=32),
        Quantize(method="pact", epochs=2, batch_size=32),
        Cluster(bits=3, epochs=2, batch_size=32),
    ],
    ids=["int4-qat", "int4-lsq", "int8-lsq", "int8-pact", "cluster"],
)
def test_a_run_that_was_killed_ends_like_an_unbroken_one(
    made: Any, data: Data, trained: nn.Module, tmp_path: Path
) -> None:
    candidate = Candidate(trained, data.example)
    whole = made.run(candidate, context_of(data, trained, tmp_path / "a"))

    def kill(what: str, done: int, total: int) -> None:
        if what == "training" and done > total / 2:
            raise KeyboardInterrupt

    broken = dataclasses.replace(context_of(data, trained, tmp_path / "b"), progress=kill)
    with pytest.raises(KeyboardInterrupt):
        made.run(candidate, broken)
    resumed = made.run(candidate, context_of(data, trained, tmp_path / "b"))
    expected = whole.module.state_dict()
    assert expected
    for name, value in resumed.module.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert resumed.lineage == whole.lineage


def test_narrow_weights_are_said_to_be_weights_alone(
    data: Data, trained: nn.Module, tmp_path: Path
) -> None:
    result = ran(data, trained, tmp_path, dtype="int4", group=16)
    assert result.form == "weights"
    assert "quantize: int4 weights, one scale per 16 weights by calibrate" in (result.lineage[-1])
    assert result.lineage[-1].endswith("bytes of weights, activations stay in float")
    assert evaluate(result.module, data.test) > evaluate(trained, data.test) - 0.05
    cost = Quantize(dtype="int4").cost(context_of(data, trained, Path("unused")))
    assert cost.endswith("(the float model for tflite, tvm)")


def test_the_most_sensitive_layers_stay_wide_and_are_named(
    data: Data, trained: nn.Module, tmp_path: Path
) -> None:
    result = ran(data, trained, tmp_path, dtype="binary", mixed={"layers": 3, "wide": "float"})
    assert "; kept in float (output error): " in result.lineage[-1]
    assert result.lineage[-1].count(" stay ") == 1
    kinds = [each.dtype for _, each in stored_weights(result.module)]
    assert kinds == ["binary"] * 7
    worse = ran(data, trained, tmp_path, dtype="binary")
    x = data.train.x[:64]
    with torch.no_grad():
        expected = trained(x)
        assert (result.module(x) - expected).norm() < (worse.module(x) - expected).norm()


def test_a_graph_that_strays_on_test_samples_alone_is_refused(
    data: Data, trained: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calibration would not see it: the graph clamps what only a test sample reaches."""
    x = data.test.x.clone()
    x[7] *= 50.0
    rare = dataclasses.replace(data, test=Samples(x, data.test.y))
    module = nn.Sequential(nn.Hardtanh(-100.0, 100.0), trained).eval()
    narrow = nn.Sequential(nn.Hardtanh(-1.0, 1.0), trained).eval()
    monkeypatch.setattr(stage_module, "export_graph", lambda _, x: export_graph(narrow, x))
    context = context_of(rare, module, tmp_path)
    with pytest.raises(ToolError, match="differs from the network at layer '0'"):
        Quantize().run(Candidate(module, data.example), context)


def test_training_ends_with_an_error_if_its_conversion_loses_a_layer(
    data: Data, trained: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = qat.finish

    def losing(graph: fx.GraphModule) -> fx.GraphModule:
        finished = finish(graph)
        integers = [v for v in finished.buffers() if v.dtype is torch.int8 and v.dim() == 4]
        integers[3].copy_(integers[3].flip(0))
        return finished

    monkeypatch.setattr(qat, "finish", losing)
    with pytest.raises(ToolError, match=r"the quantized graph is wrong in stages\S+ -?\d+ dB"):
        ran(data, trained, tmp_path, **TAUGHT)


class Volume(nn.Module):
    """A convolution in three dimensions, which has no integer form, before a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv3d(1, 2, 1), nn.Linear(2 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.last(self.first(x[:, None]).flatten(1))
        return output


def test_the_plan_refuses_a_quantization_that_reaches_too_little(data, tmp_path):
    module = Volume()
    context = context_of(data, module, tmp_path)
    candidate = Candidate(module, data.example)
    # 128 MACs of the convolution and 1280 of the layer: 91 %.
    assert Quantize().check(candidate, context, "stages.0") == []
    (fault,) = Quantize(least=0.95).check(candidate, context, "stages.0")
    assert fault.where == "stages.0.least"
    assert "int8 would reach 91%" in str(fault)
    assert "first (convolution, 9%)" in str(fault)
    assert Quantize(least=0.95, ignore=("first",)).check(candidate, context, "stages.0") == []


def test_strict_refuses_what_stays_in_float_before_anything_runs(data, trained, tmp_path):
    context = context_of(data, trained, tmp_path)
    candidate = Candidate(trained, data.example)
    assert Quantize(strict=True).check(candidate, context, "stages.0") == []
    (fault,) = Quantize(strict=True, dtype="int4").check(candidate, context, "stages.0")
    assert "int4 computes in float" in str(fault)
    (fault,) = Quantize(strict=True).check(Candidate(Volume(), data.example), context, "stages.0")
    assert "aten.conv3d (first)" in str(fault)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"percentile": 99.9}, r"percentile goes with ranges = \"percentile\", found 'minmax'"),
        ({"dtype": "int4", "ranges": "mse"}, "ranges belongs to int8; int4 leaves activations"),
        ({"activations": 16, "ranges": "octav"}, "65,535 levels are fine enough"),
        ({"method": "qat", "weight_ranges": "mse"}, "ranges of weights follow the largest weight"),
        ({"dtype": "bf16", "smooth_quant": True}, "smooth_quant belongs to int8"),
    ],
)
def test_a_key_that_the_type_or_the_method_cant_use_is_refused_by_name(
    keys, message, data, trained
):
    context = context_of(data, trained, Path("unused"))
    found = Quantize(**keys).key_faults(context, "stages.1")
    assert [fault for fault in found if re.search(message, fault.message)]


def test_training_starts_from_the_ranges_that_the_recipe_names(data, trained, tmp_path):
    from edgekd.quant.qat import activations, prepare_qat

    samples, scheme = data.train.first(64).x, Scheme(activations="int8-affine")
    scales = [
        float(
            activations(prepare_qat(trained, samples[:1], samples, scheme, choices=each))[1].scale
        )
        for each in (Quantize().choices(True), Quantize(ranges="percentile").choices(True))
    ]
    assert scales[0] != scales[1]


@pytest.mark.parametrize("keys", [{"rounding": "gptq"}, {"rounding": "adaround"}, {"awq": True}])
def test_int4_with_another_rounding_says_what_it_gained(data, trained, tmp_path, keys):
    keys |= {"rounding_steps": 20} if keys.get("rounding") == "adaround" else {}
    candidate = ran(data, trained, tmp_path, dtype="int4", **keys)
    name = "AWQ" if keys.get("awq") else keys["rounding"]
    assert f"{name}: " in candidate.lineage[-1]
    assert evaluate(candidate.module, data.test) > evaluate(trained, data.test) - 0.05


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rounding_steps": 9}, "rounding_steps goes with"),
        ({"dtype": "ternary", "rounding": "gptq"}, "ternary weights are not rounded"),
        ({"method": "lsq", "rounding": "gptq"}, "rounds them anew at every step"),
        ({"awq": True}, "awq is for int4 weights"),
    ],
)
def test_a_rounding_that_cant_be_is_refused_by_the_plan(keys, message, data, trained):
    context = context_of(data, trained, Path("unused"))
    found = Quantize(**keys).check(Candidate(trained, data.example), context, "stages.1")
    assert [fault for fault in found if message in str(fault)]


def test_auto_stops_at_the_first_attempt_that_holds_the_budget(data, trained, tmp_path):
    candidate = ran(data, trained, tmp_path, method="auto", accuracy_drop=5.0)
    assert candidate.form == "int8"
    (note,) = candidate.notes
    assert re.fullmatch(r"auto 1\. calibration: -?\d\.\d\d points lost, output error 0\.\d+", note)
    assert "auto chose calibration" in candidate.lineage[-1]
    assert "within the 5 allowed" in candidate.lineage[-1]


def test_auto_goes_through_every_method_and_says_what_each_gained(
    data, trained, tmp_path, monkeypatch
):
    monkeypatch.setattr("edgekd.stages._automatic.evaluate", lambda module, samples: 0.5 + isinstance(module, type(trained)) * 0.4)  # fmt: skip  # noqa: E501
    candidate = ran(data, trained, tmp_path, method="auto", accuracy_drop=0.0, dtype="int4")
    names = [re.sub(r"^auto \d+\. ([^:]+):.*", r"\1", note) for note in candidate.notes]
    assert names == [
        *("calibration", "GPTQ", "AWQ", "AdaRound"),
        *("reconstruction of blocks", "mixed precision"),
    ]
    errors = [float(m.group(1)) for n in candidate.notes if (m := re.search(r"error ([\d.]+)", n))]
    dropped = [note.endswith("dropped again") for note in candidate.notes]
    assert not dropped[0]
    assert errors[1] < errors[0]
    assert "more than the 0 allowed" in candidate.lineage[-1]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, 'method = "auto" stops when a budget holds, and there is none'),
        ({"accuracy_drop": 1.0, "ranges": "mse"}, 'method = "auto" chooses ranges itself'),
        ({"method": "calibrate", "accuracy_drop": 1.0}, "accuracy_drop goes with method"),
        ({"method": "qat", "last_resort": "lsq"}, "last_resort goes with method"),
        ({"dtype": "ternary", "accuracy_drop": 1.0}, "ternary doesn't support the method 'auto'"),
    ],
)
def test_what_auto_cant_do_is_refused_by_the_plan(keys, message, data, trained):
    context = context_of(data, trained, Path("unused"))
    stage = Quantize(**{"method": "auto", **keys})
    found = stage.check(Candidate(trained, data.example), context, "stages.1")
    assert [fault for fault in found if message in str(fault)]


def test_auto_takes_the_targets_budget_unless_it_has_its_own():
    assert Quantize(method="auto").within({"accuracy_drop": 0.7}).accuracy_drop == 0.7
    own = Quantize(method="auto", accuracy_drop=0.2)
    assert own.within({"accuracy_drop": 0.7}).accuracy_drop == 0.2
    assert Quantize().within({"accuracy_drop": 0.7}).accuracy_drop is None


def test_auto_trains_at_last_if_told_to(data, trained, tmp_path, monkeypatch):
    scores = iter([0.9, *[0.5] * 8, 0.89])
    monkeypatch.setattr("edgekd.stages._automatic.evaluate", lambda *_: next(scores))
    monkeypatch.setattr(
        "edgekd.stages._automatic._ladder",
        lambda *_: [("calibration", {}), ("training (qat)", {"method": "qat"})],
    )
    scores = iter([0.9, 0.5, 0.89])
    keys = {"method": "auto", "accuracy_drop": 1.5, "last_resort": "qat", "epochs": 1}
    candidate = ran(data, trained, tmp_path, **keys)
    assert "auto 2. training (qat): 1.00 points lost" in candidate.notes[1]
    assert "by qat on" in candidate.lineage[-1]


def test_an_attempt_of_auto_that_fails_is_noted_and_the_next_one_made(
    data, trained, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "edgekd.stages._automatic._ladder",
        lambda *_: [("broken", {"smooth_quant": True}), ("calibration", {})],
    )
    whole = Quantize._int8

    def made(self, *arguments):
        if self.smooth_quant:
            raise ToolError("the quantized graph is wrong", where="quantize")
        return whole(self, *arguments)

    monkeypatch.setattr(Quantize, "_int8", made)
    candidate = ran(data, trained, tmp_path, method="auto", accuracy_drop=5.0)
    assert candidate.notes[0] == "auto 1. broken: the quantized graph is wrong"
    assert candidate.notes[1].startswith("auto 2. calibration: ")


def test_auto_leaves_nothing_in_float_where_the_target_runs_integers_alone(trained, data):
    graph = export_graph(trained, data.example)
    names = [[name for name, _ in _ladder(Quantize(), graph, 0.5, alone)] for alone in (0, 1)]
    assert {"SmoothQuant", "mixed precision"} <= set(names[0])
    assert not {"SmoothQuant", "mixed precision"} & set(names[1])
