"""An ONNX file alone: no module to train, so it is calibrated, proved and measured as a file.

Its recipe has `[model] onnx = "..."`, no student, and either no stage or one `quantize` stage with
`method = "calibrate"`.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekd.backends.onnx import Onnx, tensors_of, write_onnx
from edgekd.data.samples import Data, sha256_of_tensors
from edgekd.errors import EdgekdError, InputError
from edgekd.onnx_files import describe_onnx
from edgekd.run.compiled import Compiled, kept
from edgekd.stages import Stage
from edgekd.store import Store, key_of
from edgekd.values.artifact import Artifact, sha256_of
from edgekd.values.recipe import Recipe
from edgekd.values.target import Target


def is_onnx_alone(recipe: Recipe) -> bool:
    """Whether a recipe starts from an ONNX file and has no student."""
    return recipe.model.source == "onnx" and recipe.student is None


def check_onnx_alone(stages: Sequence[Stage], targets: Sequence[Target]) -> list[EdgekdError]:
    """Every stage and target that can't be had without a module."""
    faults: list[EdgekdError] = []
    for number, stage in enumerate(stages, 1):
        table = stage.model_dump()  # type: ignore[attr-defined]
        if stage.kind != "quantize" or number > 1:
            faults.append(_fault(number, f"'{stage.kind}' needs a module to train"))
        elif (table["dtype"], table["method"]) != ("int8", "calibrate"):
            faults.append(_fault(number, "an ONNX file can't be trained or made fp16"))
    without = [target for target in targets if "onnx" not in target.backends]
    faults += [
        InputError(
            "an ONNX file alone runs with the onnx backend only",
            where=f"target {target.name}",
            allowed="a target with [backends.onnx]",
            hint="run 'edgekd targets' for their backends",
        )
        for target in without
    ]
    return [*faults, *Onnx().missing()]


def _fault(number: int, message: str) -> InputError:
    return InputError(
        message,
        where=f"stages.{number}",
        allowed='one stage: kind = "quantize", method = "calibrate"',
        hint="give [student] a factory to train",
    )


def files_of(
    path: Path, target: Target, stages: Sequence[Stage], data: Data, samples: Any, store: Store
) -> tuple[Compiled, list[Compiled]]:
    """The file as it came, and what calibration makes of it (itself, without a stage)."""

    def original(folder: Path) -> list[Artifact]:
        import onnx

        copy = folder / "model.onnx"
        shutil.copyfile(path, copy)
        return [_artifact(copy, onnx.load(path), target, ())]

    def calibrated(folder: Path) -> list[Artifact]:
        from edgekd.quant.onnx_calibration import calibrate_onnx

        corrected: bool = stages[0].bias_correction  # type: ignore[attr-defined]
        model = calibrate_onnx(path, samples, target.quantization, bias_correction=corrected)
        write_onnx(model, folder / "model.onnx")
        line = f"quantize: int8 by NNCF on {len(samples)} samples"
        return [_artifact(folder / "model.onnx", model, target, (line,))]

    parts = [sha256_of(path), target.model_dump(mode="json")]
    before = kept(store, "onnx", key_of("original", *parts), original)
    if not stages:
        return Compiled(before[0], None), [Compiled(before[0], None)]
    tables = [stage.model_dump(mode="json") for stage in stages]  # type: ignore[attr-defined]
    key = key_of("calibrated", *parts, tables, data.sha256, sha256_of_tensors(samples))
    after = kept(store, "onnx", key, calibrated)
    return Compiled(before[0], None), [Compiled(each, None) for each in after]


def _artifact(path: Path, model: Any, target: Target, lineage: tuple[str, ...]) -> Artifact:
    inputs, outputs = tensors_of(model)
    operators = describe_onnx(path).operators
    return Artifact(
        path=path,
        format="onnx",
        runtime="onnxruntime",
        precision="int8" if "QuantizeLinear" in operators else "fp32",
        target=target.name,
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        inputs=inputs,
        outputs=outputs,
        lineage=lineage,
        facts={"input_layout": "NCHW"},
    )
