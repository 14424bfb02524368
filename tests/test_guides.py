"""The numbers in the guides are those of the newest dated results."""

import json
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
