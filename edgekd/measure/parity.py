"""Whether an artifact computes the same as its reference, in steps of the output scale (LSB)."""

from typing import Any, Literal

import numpy as np
from pydantic import FiniteFloat, NonNegativeInt

from edgekd.errors import ToolError
from edgekd.values.artifact import Artifact
from edgekd.values.tables import Value
from edgekd.values.tree import Tree, rows

LSB_EDGES = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 16.0, 32.0, 64.0, 128.0)
RELATIVE_EDGES = (0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
TOLERANCE_LSB, TOLERANCE_RELATIVE = 2.0, 1e-3

ROUNDING_SHARE = 1e-3
"""Rounding adds up beyond the tolerance in few outputs; a layer that is wrong strays in many."""

UNIT_SPHERE = 1e-3
"""How far the length of a vector of length 1 may lie beside it."""


class Histogram(Value):
    """How many outputs differ by how much.

    `counts[i]` is the number of outputs with `edges[i] <= difference < edges[i + 1]`; the last bin
    has no upper edge. There are as many `edges` as `counts`, in `unit`: LSB, or relative error.
    """

    unit: Literal["lsb", "relative"]
    edges: tuple[FiniteFloat, ...]
    counts: tuple[NonNegativeInt, ...]


class Parity(Value):
    """An artifact's outputs compared with the reference's, on the same inputs.

    `max_lsb` and `mean_lsb` are |difference| / output scale, set for quantized artifacts. Float
    artifacts have `max_relative` and `mean_relative` instead: |difference| relative to the
    reference's largest magnitude, or, where every reference output (N, C) is a vector of length 1,
    the distance between the two vectors. `tolerance` is the most that passes, in the same unit;
    `scale` is one LSB. Rounding that adds up over many layers may go beyond it
    (`rounding_adds_up`). `worst_sample` is the index of the input with the largest difference, and
    `worst_output` the index of the output within it (flattened). `top1_agreement` is None if a
    sample has only one output. `reason` says why a number is None. `first_difference` names the
    first layer that differs, once `first_difference()` has looked for it. Of an artifact with
    several outputs this is the one that the task reads, `verdict` is that of all, and `outputs` has
    each by its name. `sizes` has the parity at other sizes that the file leaves open ("length 8").
    """

    reference: str
    samples: NonNegativeInt
    top1_agreement: FiniteFloat | None
    verdict: Literal["pass", "fail"]
    tolerance: FiniteFloat
    scale: FiniteFloat | None = None
    histogram: Histogram
    max_lsb: FiniteFloat | None = None
    mean_lsb: FiniteFloat | None = None
    max_relative: FiniteFloat | None = None
    mean_relative: FiniteFloat | None = None
    worst_sample: NonNegativeInt
    worst_output: NonNegativeInt
    worst_reference: FiniteFloat | None
    worst_value: FiniteFloat | None
    first_difference: str = ""
    reason: str = ""
    outputs: dict[str, "Parity"] = {}
    sizes: dict[str, "Parity"] = {}


def compare(
    reference: Any,
    outputs: Any,
    scale: float | None,
    tolerance: float | None = None,
    name: str = "the fake-quantized graph in PyTorch",
) -> Parity:
    """Compare an artifact's float outputs (N, ...) with the reference's of the same shape.

    `scale` is the step of the output's grid, None for a float artifact. `tolerance` is in LSB with
    a scale (default 2), and relative to the reference's largest magnitude without (default 0.001).
    Embeddings (N, C) of length 1 are compared on the unit sphere: one distance a sample, which says
    the angle between the vectors, however many components share it. Integers without a grid, such
    as class indices, are equal or not: one of a thousand may differ. Arguments are arrays or
    tensors. Outputs that are not finite never pass. Raises `ToolError` if
    the shapes differ or there is nothing to compare.
    """
    if scale is None and np.asarray(reference).dtype.kind in "iub":
        return _compare_integers(np.asarray(reference), np.asarray(outputs), name)
    expected, found = _flat(reference), _flat(outputs)
    if expected.shape != found.shape or expected.size == 0:
        raise ToolError(
            f"the artifact has outputs of shape {np.shape(outputs)}, "
            f"its reference {np.shape(reference)}"
        )
    if not np.isfinite(expected).all():
        raise ToolError("the reference itself has NaN or infinity", where=name)
    allowed = tolerance
    if allowed is None:
        allowed = TOLERANCE_RELATIVE if scale is None else TOLERANCE_LSB
    if scale is None and allowed >= 1.0:
        raise ValueError(
            f"a relative tolerance of {allowed:g} accepts anything; is it meant in LSB?"
        )
    broken = ~np.isfinite(found)
    differences = _differences(expected, np.where(broken, expected, found), scale)
    kept = ~broken
    if scale is None and _are_unit_vectors(reference, expected):
        kept = ~broken.any(1, keepdims=True)
        lengths = np.linalg.norm(np.where(broken, 0.0, found - expected), axis=1, keepdims=True)
        sample = int(np.argmax(np.where(kept, lengths, np.inf)))
        output = int(np.argmax(np.where(broken[sample], np.inf, differences[sample])))
        differences = lengths
    else:
        place = int(np.argmax(np.where(broken, np.inf, differences)))
        sample, output = (int(index) for index in np.unravel_index(place, differences.shape))
    most, mean = float(differences.max()), float(differences.mean())
    unit: Literal["lsb", "relative"] = "relative" if scale is None else "lsb"
    return Parity(
        reference=name,
        samples=len(expected),
        top1_agreement=_top1_agreement(reference, outputs),
        verdict="fail" if broken.any() or most > allowed else "pass",
        tolerance=allowed,
        scale=scale,
        histogram=_histogram(differences[kept], unit),
        **({} if broken.any() else {f"max_{unit}": most, f"mean_{unit}": mean}),
        worst_sample=sample,
        worst_output=output,
        worst_reference=float(expected[sample, output]),
        worst_value=None if broken[sample, output] else float(found[sample, output]),
        reason=_reason(int(broken.sum()), scale),
    )


def _compare_integers(expected: np.ndarray, found: np.ndarray, name: str) -> Parity:
    """Compare outputs that are indices or flags: the difference is the share that is not equal."""
    if expected.shape != found.shape or expected.size == 0:
        raise ToolError(
            f"the artifact has outputs of shape {found.shape}, its reference {expected.shape}"
        )
    differs = _flat(expected) != _flat(found)
    sample, output = (int(i) for i in np.unravel_index(int(differs.argmax()), differs.shape))
    share = float(differs.mean())
    return Parity(
        reference=name,
        samples=len(expected),
        top1_agreement=1.0 - share,
        verdict="fail" if share > ROUNDING_SHARE else "pass",
        tolerance=ROUNDING_SHARE,
        histogram=_histogram(differs.astype(np.float64), "relative"),
        max_relative=share,
        mean_relative=share,
        worst_sample=sample,
        worst_output=output,
        worst_reference=float(_flat(expected)[sample, output]),
        worst_value=float(_flat(found)[sample, output]),
        reason=f"integers: {int(differs.sum()):,} of {differs.size:,} differ",
    )


def rounding_adds_up(parity: Parity, reference: Any, outputs: Any) -> bool:
    """Whether outputs beyond the tolerance look like rounding that adds up over many layers.

    Every decision is the same, nothing lies beyond twice the tolerance, and at most one output in a
    thousand beyond it. That no single layer strays remains to be shown (`divergence_of`).
    """
    if parity.max_lsb is None or parity.scale is None or parity.top1_agreement != 1.0:
        return False
    differences = _differences(_flat(reference), _flat(outputs), parity.scale)
    beyond = float((differences > parity.tolerance).mean())
    return parity.max_lsb <= 2 * parity.tolerance and beyond <= ROUNDING_SHARE


def _are_unit_vectors(reference: Any, expected: np.ndarray) -> bool:
    """Whether every sample is one vector (C,) of length 1, several components of it not zero."""
    if np.ndim(reference) != 2 or expected.shape[1] < 2:
        return False
    on_sphere = np.abs(np.linalg.norm(expected, axis=1) - 1.0) < UNIT_SPHERE
    return bool(on_sphere.all() and ((expected != 0.0).sum(1) > 1).any())


def _flat(outputs: Any) -> np.ndarray:
    array = np.asarray(outputs, dtype=np.float64)
    return array.reshape(len(array), -1) if array.ndim and array.size else array


def _differences(expected: np.ndarray, found: np.ndarray, scale: float | None) -> np.ndarray:
    difference: np.ndarray = np.abs(found - expected)
    if scale is None:
        return difference / max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    steps = difference / scale
    whole = np.round(steps)
    # Both are on the same grid; float32 rounding beside a whole step is not a difference.
    return np.where(np.abs(steps - whole) < 0.01, whole, steps)


def _histogram(differences: np.ndarray, unit: Literal["lsb", "relative"]) -> Histogram:
    edges = RELATIVE_EDGES if unit == "relative" else LSB_EDGES
    counts, _ = np.histogram(differences, bins=[*edges, np.inf])
    return Histogram(unit=unit, edges=edges, counts=tuple(int(count) for count in counts))


def _top1_agreement(reference: Any, outputs: Any) -> float | None:
    """The share of samples (or positions) with the same largest output along axis 1."""
    expected, found = np.asarray(reference), np.asarray(outputs)
    if expected.ndim < 2 or expected.shape[1] < 2:
        return None
    return float((expected.argmax(1) == found.argmax(1)).mean())


def _reason(broken: int, scale: float | None) -> str:
    if broken:
        return f"{broken} outputs are NaN or infinite, so there is no largest difference"
    return "a float artifact has no LSB; see max_relative" if scale is None else ""


def first_difference(
    candidate_graph: Any, artifact: Artifact, inputs: Tree, tolerance: float = TOLERANCE_LSB
) -> str:
    """Name the first layer of a quantized artifact that computes something else than the graph.

    `candidate_graph` is the fake-quantized `fx.GraphModule` and `inputs` the tree (1, ...) of one
    sample, the worst. Each layer of the graph runs on the artifact's own inputs to that layer, so
    an error counts once, where it arises, and rounding does not accumulate. `tolerance` is in LSB
    of the layer's output. Works for ONNX and TFLite files with quantized tensors; for others, and
    if no single layer is responsible, the sentence says so."""
    from edgekd.measure.divergence import divergence_of

    sample = rows(inputs, slice(0, 1))
    return divergence_of(candidate_graph, artifact, sample, tolerance).sentence
