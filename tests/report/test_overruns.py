import pytest
from synthetic_report import float_parity, lsb_parity, synthetic_report

from edgekd.report.overruns import best_micro_file, overrun_lines
from edgekd.report.values import (
    ArtifactReport,
    Dataset,
    Report,
    StageReport,
    TargetReport,
    TeacherReport,
)
from edgekd.values.measurement import Judgement


def judgement(metric, limit, value, verdict, reason=""):
    kind = "unavailable" if value is None else "measured"
    return Judgement(
        metric=metric, limit=limit, value=value, kind=kind, verdict=verdict, reason=reason
    )


def artifact(*budgets, path="artifacts/m4/model.c", format="c", precision="int8"):
    reasons = {"accuracy_drop": "x", "agreement_with_teacher": "x", "parity": "x"}
    return ArtifactReport(
        path=path, format=format, runtime="c", precision=precision, sha256="0", bytes=1,
        accuracy=0.5, accuracy_drop=None, agreement_with_teacher=None, parity=None,
        budgets=budgets, reasons=reasons,
    )  # fmt: skip


def report(*artifacts):
    reasons = {"accuracy": "x", "parameters": "x", "macs": "x", "bytes": "x"}
    return Report(
        verdict="fail",
        seed=0,
        versions={},
        data=Dataset(name="d", classes=2, train=1, validation=1, test=1),
        teacher=TeacherReport(
            accuracy=None, parameters=None, macs=None, bytes=None, reasons=reasons
        ),
        stages=(),
        targets=(
            TargetReport(name="m4", baseline=None, artifacts=artifacts, reasons={"baseline": "x"}),
        ),
    )


@pytest.mark.parametrize(
    ("one", "line"),
    [
        (
            judgement("size_kib", 4, 19.6, "fail", "above the limit"),
            "m4: model.c: size_kib = 19.6 is 15.6 over its limit of 4; "
            "try a smaller student, or a larger 'amount' in a prune stage",
        ),
        (
            judgement("accuracy", 0.9, 0.85, "fail", "below the limit"),
            "m4: model.c: accuracy = 0.85 is 0.05 below its limit of 0.9; "
            "try more epochs, method = 'qat' in the quantize stage, or less pruning",
        ),
        (
            judgement("latency_ms", 5, 4.9, "fail", "the interval's upper end, 5.2, is above"),
            "m4: model.c: latency_ms = 4.9 misses its limit of 5: the interval's upper end, 5.2, "
            "is above; try a smaller student, a larger 'amount' in a prune stage, or a faster "
            "target",
        ),
        (
            judgement("memory_kib", 64, None, "unverified", "no micro runtime"),
            "m4: model.c: memory_kib <= 64 is unverified: no micro runtime",
        ),
        (
            judgement("accuracy", 0.9, None, "unverified", "not run"),
            "m4: model.c: accuracy >= 0.9 is unverified: not run",
        ),
    ],
)
def test_a_broken_budget_is_one_line_with_by_how_much_and_what_to_try(one, line):
    assert overrun_lines(report(artifact(judgement("size_mb", 9, 1, "pass"), one))) == [line]


def test_the_file_that_breaks_a_budget_most_is_reported():
    small = artifact(judgement("size_kib", 4, 5, "fail", "above the limit"), path="a/small.c")
    large = artifact(judgement("size_kib", 4, 9, "fail", "above the limit"), path="a/large.c")
    weak = artifact(judgement("memory_kib", 4, None, "unverified", "unknown"))
    (line,) = overrun_lines(report(small, large, weak))
    assert line.startswith("m4: large.c: size_kib = 9 is 5 over its limit of 4; try")


def test_outputs_that_stray_are_a_line_of_their_own():
    whole = synthetic_report()
    target = whole.targets[0]
    parity = lsb_parity((1, *[0] * 11, 9), "fail")
    stray = target.artifacts[0].model_copy(update={"parity": parity, "budgets": ()})
    target = target.model_copy(update={"artifacts": (stray,)})
    name = stray.path.rpartition("/")[2]
    assert overrun_lines(whole.model_copy(update={"targets": (target,)})) == [
        f"{target.name}: {name}: parity failed: 128 LSB away from the fake-quantized graph "
        "in PyTorch, 2 allowed; what runs is not the network that was trained, so no training "
        "mends it"
    ]


def test_a_wrong_file_of_the_teacher_is_a_line_with_the_layer():
    whole = synthetic_report()
    target = whole.targets[0]
    wrong = float_parity().model_copy(
        update={"verdict": "fail", "max_relative": 7.0, "first_difference": "at layer 'stem'"}
    )
    baseline = target.baseline.model_copy(update={"parity": wrong, "path": "a/teacher.onnx"})
    target = target.model_copy(update={"baseline": baseline, "artifacts": ()})
    (line,) = overrun_lines(whole.model_copy(update={"targets": (target,)}))
    assert line == (
        f"{target.name}: teacher.onnx: the teacher's own file is wrong, so nothing can be compared "
        "with it: 7 of the largest output away from the float model in PyTorch, 0.001 allowed; "
        "what runs is not the network that was trained, so no training mends it: at layer 'stem'"
    )


KINDS = ("distill", "prune", "quantize")


def stage(kind, accuracy):
    return StageReport(
        kind=kind, cached=False, seconds=1, accuracy=accuracy, parameters=1, macs=1, bytes=1,
        line=f"{kind}: done",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("accuracies", "advice"),
    [
        # distill, prune, quantize; the teacher has 0.95 and the file 0.50
        ((0.94, 0.53, 0.50), "41.0 points are lost in the prune stage: try more epochs in the"),
        ((0.94, 0.93, 0.50), "43.0 points are lost in the quantize stage: try method = 'qat' in"),
        ((0.55, 0.54, 0.50), "40.0 points are lost in the distill stage: try more epochs, or a"),
        ((0.94, 0.93, 0.90), "40.0 points are lost between the last stage and the file: a fault"),
    ],
)
def test_advice_on_accuracy_follows_from_where_it_was_lost(accuracies, advice):
    stages = [stage(*each) for each in zip(KINDS, accuracies, strict=True)]
    other = stage("factorize", 0.1)  # of another target's file
    lines = tuple(each.line for each in stages)
    broken = artifact(judgement("accuracy", 0.9, 0.5, "fail")).model_copy(update={"lineage": lines})
    whole = report(broken)
    teacher = whole.teacher.model_copy(update={"accuracy": 0.95})
    (line,) = overrun_lines(
        whole.model_copy(update={"stages": (*stages, other), "teacher": teacher})
    )
    assert f"; {advice}" in line


def test_more_epochs_are_not_the_advice_for_a_wrong_file():
    parity = lsb_parity((1, *[0] * 11, 9), "fail", "stem.0 (conv2d): 90 LSB")
    broken = artifact(judgement("accuracy", 0.9, 0.1, "fail"))
    rest = {"accuracy_drop": "x", "agreement_with_teacher": "x"}
    broken = broken.model_copy(update={"parity": parity, "reasons": rest})
    lines = overrun_lines(report(broken))
    assert "its parity fails first" in lines[0]
    assert lines[0].endswith("so no training mends it: stem.0 (conv2d): 90 LSB")
    assert "epochs" not in " ".join(lines)


def test_plain_c_is_made_of_the_tflite_file_and_the_array_of_velas():
    files = [
        artifact(path="model.onnx", format="onnx"),
        artifact(path="half.tflite", format="tflite", precision="fp16"),
        artifact(path="model.tflite", format="tflite"),
        artifact(path="model_vela.tflite", format="vela"),
    ]
    assert best_micro_file(tuple(files), "c").path == "model.tflite"
    assert best_micro_file(tuple(files), "tflm").path == "model_vela.tflite"
    assert best_micro_file(tuple(files[:3]), "tflm").path == "model.tflite"
    assert best_micro_file(tuple(files[:2]), "c") is None
