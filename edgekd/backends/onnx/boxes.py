"""Box decoding and non-maximum suppression behind a network, in one ONNX file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgekd.backends.onnx.export import tensors_of, to_onnx, write_onnx
from edgekd.errors import InputError, ToolError, summary_of
from edgekd.values.artifact import BOXES, Artifact, sha256_of
from edgekd.values.box_search import BoxSearch, unfit_candidates
from edgekd.values.tree import Tree

OUTPUT = "boxes"


class Candidates(nn.Module):
    """The candidates as a network of the outputs: boxes, scores, classes."""

    def __init__(self, candidates: Callable[[Any], Any]) -> None:
        super().__init__()
        self.candidates = candidates

    def forward(self, outputs: Any) -> Any:
        boxes, sure, names = self.candidates(outputs)
        return boxes.float(), sure.float(), names.to(torch.int64)


def with_boxes(
    artifact: Artifact,
    outputs: Tree,
    search: BoxSearch,
    classes: int,
    path: Path,
) -> Artifact:
    """The file of `artifact` with a search behind it, written to `path`: its one output `boxes`
    (B, most, 6) is class, x, y, width, height and score, the surest first, class -1 for none.

    `outputs` is what the network gives for one sample. Raises `InputError` for candidates that
    can't be exported.
    """
    import onnx

    network = onnx.load(str(artifact.path))
    _rename(network.graph, OUTPUT, f"network.{OUTPUT}")
    try:
        behind = to_onnx(Candidates(search.candidates).eval(), outputs)
    except (InputError, ToolError) as error:
        raise unfit_candidates(error, "exported") from error
    behind = onnx.compose.add_prefix(behind, "search.")
    behind.ir_version = network.ir_version
    pairs = [
        (before.name, after.name)
        for before, after in zip(network.graph.output, behind.graph.input, strict=True)
    ]
    try:
        whole = onnx.compose.merge_models(network, behind, io_map=pairs)
    except (ValueError, onnx.checker.ValidationError) as error:
        message = f"the search does not fit behind the network: {summary_of(error)}"
        raise ToolError(message, where="backends.onnx") from error
    del whole.metadata_props[:]
    whole.metadata_props.extend(network.metadata_props)
    whole.producer_name, whole.producer_version = network.producer_name, network.producer_version
    whole.graph.name = "main"
    names = [value.name for value in behind.graph.output]
    places = behind.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    most = min(search.most, places)
    _append(whole.graph, names, search, most, places, classes)
    write_onnx(whole, path)
    inputs, found = tensors_of(whole)
    return artifact.model_copy(
        update={
            "path": path,
            "sha256": sha256_of(path),
            "bytes": path.stat().st_size,
            "inputs": inputs,
            "outputs": found,
            "facts": {**artifact.facts, BOXES: float(most)},
            "notes": (
                *artifact.notes,
                f"{path.name} decodes and suppresses boxes by itself, in float",
            ),
        }
    )


def _rename(graph: Any, name: str, other: str) -> None:
    """Call a value another name, if there is one of that name."""
    for node in graph.node:
        node.input[:] = [other if each == name else each for each in node.input]
        node.output[:] = [other if each == name else each for each in node.output]
    for value in (*graph.output, *graph.value_info):
        value.name = other if value.name == name else value.name


def _append(
    graph: Any,
    given: Sequence[str],
    search: BoxSearch,
    most: int,
    places: int,
    classes: int,
) -> None:
    """Add NonMaxSuppression, and what makes rows of its selected indices."""
    import onnx

    boxes, sure, names = given
    # The operator suppresses above its threshold, edgekd's from `overlap` on.
    above = np.nextafter(np.float32(search.overlap), np.float32(0))
    constants = {
        "classes": np.arange(classes, dtype=np.int64).reshape(1, -1, 1),
        "one": np.array([1], np.int64), "last": np.array([-1], np.int64),
        "nothing": np.zeros(1, np.float32), "none": np.full(1, -1, np.float32),
        "every": np.array([places], np.int64), "above": above.reshape(1),
        "least": np.array([search.confidence], np.float32),
        "image_and_place": np.array([0, 2], np.int64),
        "most": np.array([most], np.int64), "four": np.array([1, 1, 4], np.int64),
        "empty": np.array([-1, 0, 0, 0, 0, 0], np.float32).reshape(1, 1, 6),
        "yes": np.ones(1, np.float32), "first": np.array([0], np.int64),
    }  # fmt: skip
    prefix = "suppression."
    for name, value in constants.items():
        graph.initializer.append(onnx.numpy_helper.from_array(value, prefix + name))

    def add(kind: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> None:
        node = onnx.helper.make_node(
            kind, _named(inputs, constants, prefix), [prefix + each for each in outputs],
            name=prefix + outputs[0], **attributes,
        )  # fmt: skip
        graph.node.append(node)

    at = prefix.__add__
    # Each place counts for its own class only: scores (B, classes, n).
    add("Unsqueeze", [names, "one"], "names")
    add("Equal", [at("names"), "classes"], "its")
    add("Unsqueeze", [sure, "one"], "sure")
    add("Where", [at("its"), at("sure"), "nothing"], "scores")
    add(
        "NonMaxSuppression", [boxes, at("scores"), "every", "above", "least"], "selected",
        center_point_box=1,
    )  # fmt: skip
    # A mask (B, n) of the places that stay, and of those the surest.
    add("Gather", [at("selected"), "image_and_place"], "kept", axis=1)
    add("Shape", [at("kept")], "kept_shape")
    add("Slice", [at("kept_shape"), "first", "one"], "kept_count")
    add("Expand", ["yes", at("kept_count")], "marks")
    add("Mul", [sure, "nothing"], "blank")
    add("ScatterND", [at("blank"), at("kept"), at("marks")], "mask")
    add("Greater", [at("mask"), "nothing"], "stays")
    add("Where", [at("stays"), sure, "none"], "ranked")
    add("TopK", [at("ranked"), "most"], "score", "place", axis=1)
    add("Unsqueeze", [at("place"), "last"], "place3")
    add("Expand", [at("place3"), "four"], "place4")
    add("GatherElements", [boxes, at("place4")], "box", axis=1)
    add("GatherElements", [names, at("place")], "name", axis=1)
    add("Cast", [at("name")], "class", to=onnx.TensorProto.FLOAT)
    add("Unsqueeze", [at("class"), "last"], "class3")
    add("Unsqueeze", [at("score"), "last"], "score3")
    add("Concat", [at("class3"), at("box"), at("score3")], "rows", axis=2)
    add("Greater", [at("score3"), "nothing"], "there")
    node = onnx.helper.make_node(
        "Where", [at("there"), at("rows"), at("empty")], [OUTPUT], name=at("found")
    )
    graph.node.append(node)
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    count = batch.dim_value if batch.HasField("dim_value") else batch.dim_param
    del graph.output[:]
    value = onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, [count, most, 6])
    graph.output.append(value)


def _named(inputs: Sequence[str], constants: Any, prefix: str) -> list[str]:
    return [prefix + each if each in constants else each for each in inputs]
