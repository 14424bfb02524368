"""A made-up report: every number is invented, to be like a real run's. Three targets, one budget
that fails, two that nothing acceptable measured, and every kind of missing value."""

import random
from typing import Any

from edgekd.measure.parity import LSB_EDGES, RELATIVE_EDGES, Histogram, Parity
from edgekd.report.values import (
    ArtifactReport,
    Dataset,
    LayerCost,
    Layers,
    Report,
    StageReport,
    TargetReport,
    TeacherReport,
)
from edgekd.values.artifact import OpPlacement, TensorInfo
from edgekd.values.measurement import Judgement, Measurement, unavailable

PROTOCOL = "5 windows, 61,440 inferences, 60 s, 1 thread"


def latencies(
    p50: float, kind: Any = "measured", device: str = "host", over: float | None = None
) -> tuple[Measurement, ...]:
    """What one benchmark gives; `over` is the baseline's p50, where that was measured beside it."""
    draw = random.Random(round(p50 * 1e6))
    samples = tuple(p50 * (0.97 + abs(draw.gauss(0.03, 0.02))) for _ in range(700))
    conditions = {"governor": "performance", "threads": "1", "onnxruntime": "1.31.1"}
    common: dict[str, Any] = {
        "kind": kind, "device": device, "protocol": PROTOCOL, "conditions": conditions,
    }  # fmt: skip
    return (
        Measurement(
            metric="latency_ms_p50", value=p50, ci=(p50 * 0.99, p50 * 1.01), samples=samples,
            **common,
        ),
        Measurement(
            metric="latency_ms_p90", value=p50 * 1.05, ci=(p50 * 1.03, p50 * 1.07), **common
        ),
        Measurement(
            metric="latency_ms_p99", value=p50 * 1.3, ci=(p50 * 1.2, p50 * 1.42), **common
        ),
        Measurement(metric="peak_memory_bytes", value=5.1e6, kind=kind, device=device),
        Measurement(
            metric="energy_mj", value=None, kind="unavailable", device=device,
            reason="no energy sensor: RAPL needs root",
        ),
        Measurement(metric="latency_ratio", value=over / p50, **common) if over
        else unavailable("latency_ratio", "measured alone", device=device),
    )  # fmt: skip


def lsb_parity(counts: tuple[int, ...], verdict: Any = "pass", first: str = "") -> Parity:
    most = max((edge for edge, count in zip(LSB_EDGES, counts, strict=True) if count), default=0)
    return Parity(
        reference="the fake-quantized graph in PyTorch", samples=10_000, top1_agreement=0.9987,
        verdict=verdict, tolerance=2.0,
        histogram=Histogram(unit="lsb", edges=LSB_EDGES, counts=counts),
        max_lsb=most, mean_lsb=0.31, worst_sample=4711, worst_output=3, worst_reference=2.25,
        worst_value=2.5, first_difference=first,
    )  # fmt: skip


def float_parity() -> Parity:
    return Parity(
        reference="the float model in PyTorch", samples=10_000, top1_agreement=1.0, verdict="pass",
        tolerance=1e-3,
        histogram=Histogram(
            unit="relative", edges=RELATIVE_EDGES, counts=(0, 41_200, 58_000, 800, 0, 0, 0, 0, 0, 0)
        ),
        max_relative=2.1e-6, mean_relative=1.7e-7, worst_sample=12, worst_output=0,
        worst_reference=4.5, worst_value=4.50001, reason="a float artifact has no LSB",
    )  # fmt: skip


def artifact(path: str, size: int, **fields: Any) -> ArtifactReport:
    table: dict[str, Any] = {
        "path": path, "format": path.rpartition(".")[2], "runtime": "onnxruntime",
        "precision": "int8", "sha256": "9f2c" * 16, "bytes": size, "accuracy": 0.9352,
        "accuracy_ci": (0.9303, 0.9399), "accuracy_drop": 0.61, "accuracy_drop_ci": (0.31, 0.92),
        "agreement_with_teacher": 0.9711, "parity": lsb_parity((71_000, 28_400, 600, *[0] * 10)),
        "versions": {"torch": "2.13.0", "onnxruntime": "1.31.1"},
        "lineage": ("distill: kl, 12 epochs", "quantize: int8, QAT, 3 epochs"),
    }  # fmt: skip
    return ArtifactReport.model_validate({**table, **fields})


def judged(metric: str, limit: float, value: float | None, verdict: str, **rest: Any) -> Judgement:
    table = {"metric": metric, "limit": limit, "value": value, "verdict": verdict, **rest}
    return Judgement.model_validate({"kind": "measured", **table})


def x86() -> TargetReport:
    baseline = artifact(
        "artifacts/x86/teacher.onnx", 4_350_000, precision="fp32", accuracy=0.9413,
        accuracy_ci=(0.9366, 0.9459), accuracy_drop=0.0, agreement_with_teacher=1.0,
        measurements=latencies(1.361), parity=float_parity(),
    )  # fmt: skip
    int8 = artifact(
        "artifacts/x86/model.onnx", 128_400, measurements=latencies(0.094, over=1.361),
        budgets=(
            judged("latency_ms_p90", 0.2, 0.0987, "pass"),
            judged("size_kb", 200, 128.4, "pass"),
            judged("accuracy_drop", 1.0, 0.61, "pass"),
            judged(
                "energy_mj", 1.0, None, "unverified", kind="unavailable",
                reason="no energy sensor: RAPL needs root",
            ),
        ),
    )  # fmt: skip
    compiled = artifact(
        "artifacts/x86/model.so", 412_000, runtime="tvm", format="tvm", precision="fp32",
        accuracy=0.9361, accuracy_ci=(0.9312, 0.9408), accuracy_drop=0.52,
        accuracy_drop_ci=(0.22, 0.83), measurements=latencies(0.151, over=1.361),
        parity=float_parity(),
        notes=("2 kernels without a schedule of ours: mean, softmax",),
        budgets=(
            judged(
                "energy_mj", 1.0, None, "unverified", kind="unavailable",
                reason="no energy sensor: RAPL needs root",
            ),
        ),
    )  # fmt: skip
    return TargetReport(
        name="x86", title="x86-64 with VNNI", device="host", baseline=baseline,
        artifacts=(int8, compiled),
    )  # fmt: skip


def raspberry() -> TargetReport:
    wrong = lsb_parity(
        (60_000, 28_000, 7_000, 2_000, 900, 600, 500, 300, 200, 300, 150, 45, 5), "fail",
        "stages.1.0.conv2 (conv2d): 71 LSB from the reference on the same input",
    )  # fmt: skip
    return TargetReport(
        name="raspberry-pi-5", title="Raspberry Pi 5", device="emulated",
        baseline=artifact(
            "artifacts/raspberry-pi-5/teacher.onnx", 4_350_000, precision="fp32", accuracy=0.9413,
            accuracy_ci=(0.9366, 0.9459), accuracy_drop=0.0, agreement_with_teacher=1.0,
            parity=float_parity(), measurements=latencies(9.8, "simulated", "emulated"),
        ),
        artifacts=(
            artifact(
                "artifacts/raspberry-pi-5/model.onnx", 128_400,
                measurements=latencies(1.12, "simulated", "emulated", 9.8),
                budgets=(
                    judged(
                        "latency_ms_p90", 2.0, 1.18, "unverified", kind="simulated",
                        reason="only simulated, within the limit; --accept simulated would let "
                        "it count",
                    ),
                ),
            ),
            artifact(
                "artifacts/raspberry-pi-5/model.tflite", 121_900, runtime="litert", parity=wrong,
                accuracy=0.9011, accuracy_ci=(0.8951, 0.9069), accuracy_drop=4.02,
                accuracy_drop_ci=(3.5, 4.6),
                measurements=latencies(0.98, "simulated", "emulated", 9.8),
                budgets=(judged("accuracy_drop", 1.0, 4.02, "fail", reason="above the limit"),),
            ),
        ),
    )  # fmt: skip


def coral() -> TargetReport:
    nothing = "no Edge TPU is attached"
    return TargetReport(
        name="coral", title="Coral USB Accelerator", baseline=None,
        reasons={"baseline": "the Edge TPU runs int8 models only"},
        artifacts=(
            artifact(
                "artifacts/coral/model_edgetpu.tflite", 139_000, runtime="edgetpu",
                accuracy=None, accuracy_ci=None, accuracy_drop=None, accuracy_drop_ci=None,
                agreement_with_teacher=None, parity=None,
                reasons=dict.fromkeys(
                    ("accuracy", "accuracy_drop", "agreement_with_teacher", "parity"), nothing
                ),
                measurements=(
                    Measurement(
                        metric="latency_ms_p50", value=None, kind="unavailable", device="coral",
                        reason=nothing,
                    ),
                    Measurement(
                        metric="on_chip_bytes", value=131_072, kind="estimated", device="coral"
                    ),
                ),
                budgets=(
                    judged(
                        "latency_ms_p90", 2.0, None, "unverified", kind="unavailable",
                        reason=nothing,
                    ),
                ),
                placements=(
                    OpPlacement(name="conv_0", op="CONV_2D", placement="edgetpu"),
                    OpPlacement(
                        name="mean", op="MEAN", placement="cpu", reason="reduces the batch"
                    ),
                ),
                notes=("1 of 15 operators runs on the CPU",),
            ),
        ),
    )  # fmt: skip


def layers() -> Layers:
    names = [
        "stem.0",
        *(f"stages.{s}.{b}.conv{c}" for s, b in ((0, 0), (1, 0), (2, 0)) for c in (1, 2)),
    ]
    before = [
        LayerCost(
            name=name, kind="convolution", parameters=9_000 * 2**i, macs=14_450_688 // (i + 1)
        )
        for i, name in enumerate(names)
    ]
    after = [
        LayerCost(name=one.name, kind=one.kind, parameters=one.parameters // 9, macs=one.macs // 11)
        for one in before[:-1]
    ]
    half = before[-1].parameters // 20
    after += [
        LayerCost(name=f"{names[-1]}.{part}", kind="convolution", parameters=half, macs=90_000)
        for part in (0, 1)
    ]
    dense = [LayerCost(name="classifier", kind="linear", parameters=1_290, macs=1_280)]
    return Layers(before=(*before, *dense), after=(*after, *dense))


def stages() -> tuple[StageReport, ...]:
    return (
        StageReport(
            kind="prune", cached=True, seconds=81.0, accuracy=0.9204, parameters=310_400,
            macs=18_100_000, bytes=1_241_600,
            line="prune: 62 % of channels by movement, rounded to 8",
        ),
        StageReport(
            kind="distill", cached=True, seconds=1_902.0, accuracy=0.9377,
            accuracy_ci=(0.9329, 0.9424), parameters=310_400, macs=18_100_000, bytes=1_241_600,
            line="distill: kl + attention, 12 epochs of 54,000 samples",
        ),
        StageReport(
            kind="factorize", cached=False, seconds=12.4, accuracy=None, parameters=118_300,
            macs=7_900_000, bytes=473_200, line="factorize: 3 layers, 95 % energy",
            reasons={"accuracy": "not evaluated before the next stage"},
        ),
        StageReport(
            kind="quantize", cached=False, seconds=340.2, accuracy=0.9352, parameters=118_300,
            macs=7_900_000, bytes=121_300, line="quantize: int8, QAT with kl, 3 epochs",
        ),
    )  # fmt: skip


def synthetic_report(name: str = "ResNet-14 for Fashion-MNIST", **fields: Any) -> Report:
    table: dict[str, Any] = {
        "verdict": "fail", "seed": 0, "name": name, "created": "2026-11-21T03:40:00+00:00",
        "command": "edgekd compress recipe.toml --target x86 --target raspberry-pi-5",
        "versions": {"edgekd": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "onnx": "1.23.2"},
        "plan": (
            "prune the channels of 21 layers by movement",
            "distil from the teacher for 12 epochs of 54,000 samples",
            "factorize layers that get cheaper",
            "quantize to int8 with 3 epochs of QAT",
            "compile onnx and tvm for x86, onnx and tflite for raspberry-pi-5, tflite for coral",
        ),
        "data": Dataset(
            name="fashion-mnist", classes=10, train=54_000, validation=6_000, test=10_000
        ),
        "teacher": TeacherReport(
            name="resnet14", accuracy=0.9413, accuracy_ci=(0.9366, 0.9459), parameters=1_075_000,
            macs=61_300_000, bytes=4_300_000,
        ),
        "stages": stages(), "layers": layers(), "targets": (x86(), raspberry(), coral()),
        "notes": ("--quick was not given: full protocol",),
    }  # fmt: skip
    return Report.model_validate({**table, **fields})


def two_outputs() -> TargetReport:
    """A file with two inputs and two outputs, one of which strays."""
    inputs = (
        TensorInfo(name="ids", shape=(-1, 8), dtype="int64"),
        TensorInfo(name="mask", shape=(-1, 8), dtype="float32"),
    )
    outputs = (
        TensorInfo(name="logits", shape=(-1, 3), dtype="float32", scale=0.1, zero_point=4),
        TensorInfo(name="embedding", shape=(-1, 4), dtype="float32"),
    )
    each = {
        "logits": lsb_parity((9, 1, *[0] * 11)),
        "embedding": float_parity().model_copy(update={"verdict": "fail", "max_relative": 0.5}),
    }
    parity = each["logits"].model_copy(
        update={"outputs": each, "verdict": "fail", "first_difference": "output 'embedding': mean"}
    )
    file = artifact(
        "artifacts/x86/model.onnx", 1000, inputs=inputs, outputs=outputs, parity=parity,
        measurements=latencies(0.1),
    )  # fmt: skip
    return x86().model_copy(update={"artifacts": (file,)})
