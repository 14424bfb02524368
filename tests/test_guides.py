"""The numbers in the guides are those of the newest dated results."""

import json
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

ROOT = Path(__file__).parent.parent
METHODS = ROOT / "benchmarks/methods"
GUIDE = (ROOT / "docs/methods.md").read_text(encoding="utf-8")


def newest(pattern: str) -> Path:
    return max(METHODS.glob(pattern))


def test_the_table_of_methods_is_the_measured_one():
    assert newest("run.*.md").read_text(encoding="utf-8") in GUIDE
    result = json.loads(newest("run.*.json").read_text(encoding="utf-8"))
    assert result["missing_rows"] == result["missing_costs"] == []
    for row in result["rows"]:
        assert f"| {row['method']} | {row['mean']:.2f} | {row['spread']:.2f} |" in GUIDE


def test_the_errors_of_hintons_experiment_are_the_measured_ones():
    result = json.loads(newest("hinton.*.json").read_text(encoding="utf-8"))
    section = GUIDE.split("**Hinton's experiment**")[1]
    for errors in result["mean_errors"].values():
        assert f"{errors:,.0f}" in section


RESULTS = (ROOT / "docs/results.md").read_text(encoding="utf-8")


def dated(pattern: str) -> dict:
    path = max((ROOT / "benchmarks").glob(pattern))
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_rows_of_fashion_mnist_are_the_measured_ones():
    result = dated("fashion_mnist/three_seeds.*.json")
    assert "277c9f2" in result["conditions"]
    for run in result["runs"]:
        accuracy, p50 = f"{run['student_accuracy']:.2%}", f"{run['student_p50_ms']:.3f} ms"
        row = f"| {run['seed']} | {accuracy.replace('%', ' %')} | {run['drop_points']} | {p50} |"
        assert f"{row} {run['times_faster']:.2f}x faster |" in RESULTS
        assert f"{run['times_smaller']:.1f}x smaller" in RESULTS
        assert f"{run['student_bytes'] / 1000:.0f} kB" in RESULTS


def test_the_comparison_of_quantizers_is_the_measured_one():
    for result in dated("quantization/against_peers.*.json")["results"]:
        points = result["points_below_peer"]["qat"]
        low, high = points["ci"]
        ratio = result["latency_over_peer"]["qat"]["ratio"]
        cells = f"| {points['value']:.2f} points | {_two(low)} to {_two(high)} | {ratio:.3f}x |"
        assert cells in RESULTS


def test_the_operators_in_float_are_the_counted_ones():
    table = max((ROOT / "benchmarks").glob("float_operators/run.*.md")).read_text(encoding="utf-8")
    assert table in RESULTS
    networks = dated("float_operators/run.*.json")["networks"]
    assert all(f"| {name} |" in table for name in networks)
    for name, tool in (("resnet18", "onnx"), ("convnext_atto", "onnxruntime quantize_static")):
        found = networks[name][tool]
        assert f"| {found['float']} of {found['operators']}, " in table


def _two(value: float) -> Decimal:
    """Two decimals, a half rounded away from zero."""
    return Decimal(f"{value:.6f}").quantize(Decimal("0.01"), ROUND_HALF_UP)


def test_the_repeatability_is_the_measured_one():
    ratios = dated("bench/ratio_repeats.*.json")
    assert ratios["spread_of_ratios"] <= 0.008
    assert 0.085 < max(ratios["spread_of_medians"].values()) < 0.095
    own_tools = dated("bench/against_own_tools.*.json")["found"].values()
    assert max(abs(found["ratio"] - 1) for found in own_tools) <= 0.026
