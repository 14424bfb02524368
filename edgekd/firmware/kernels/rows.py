"""Rows of a tensor in another order: REVERSE_V2, and GATHER_ND by a constant list of rows."""

import math

from edgekd.firmware.graph import Node
from edgekd.firmware.kernels.copy import move
from edgekd.firmware.step import Step
from edgekd.firmware.strides import contiguous

MOST_RUNS = 64
"""The calls that one list of rows may take."""


def _reversed(node: Node) -> list[Step]:
    source, output = node.computed(0), node.output
    rank = len(source.shape)
    axes = {int(axis) % rank for axis in node.constant(1, "int32").reshape(-1)}
    if output.shape != source.shape:
        raise node.refuse(f"{source.shape} -> {output.shape}")
    steps = contiguous(source.shape)
    strides = [-step if axis in axes else step for axis, step in enumerate(steps)]
    start = sum((source.shape[axis] - 1) * steps[axis] for axis in axes)
    return [move(node, source, output, source.shape, strides, steps, start=start)]


def _gathered(node: Node) -> list[Step]:
    source, output = node.computed(0), node.output
    indices = node.constant(1, "int32")
    if indices.ndim != 2 or indices.shape[1] != 1:
        raise node.refuse("its indices are not a list of rows")
    rows = [int(row) for row in indices.reshape(-1)]
    if output.shape != (len(rows), *source.shape[1:]):
        raise node.refuse(f"{source.shape} by {len(rows)} rows is not {output.shape}")
    width = math.prod(source.shape[1:])
    runs = arithmetic_runs(rows)
    if len(runs) > MOST_RUNS:
        raise node.refuse(f"its rows are {len(runs)} runs, but at most {MOST_RUNS} are supported")
    calls, done = [], 0
    for first, step, count in runs:
        places = ((count, width), (step * width, 1), (width, 1))
        calls.append(move(node, source, output, *places, start=first * width, to=done * width))
        done += count
    return calls


def arithmetic_runs(numbers: list[int]) -> list[tuple[int, int, int]]:
    """The numbers as runs with equal steps: (first, step, count) each."""
    runs: list[tuple[int, int, int]] = []
    at = 0
    while at < len(numbers):
        step = numbers[at + 1] - numbers[at] if at + 1 < len(numbers) else 0
        end = at + 1
        while end < len(numbers) and numbers[end] - numbers[end - 1] == step:
            end += 1
        runs.append((numbers[at], step, end - at))
        at = end
    return runs


OPERATORS = {"GATHER_ND": _gathered, "REVERSE_V2": _reversed}
