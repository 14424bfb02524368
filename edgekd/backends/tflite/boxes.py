"""Box decoding and non-maximum suppression behind a network, in one TFLite file."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.backends.tflite.convert import convert
from edgekd.backends.tflite.lookups import Writer
from edgekd.errors import InputError, ToolError
from edgekd.formats.graph import info_of
from edgekd.formats.tflite import read_tflite
from edgekd.formats.tflite_metadata import packed, unpacked
from edgekd.store import write_beside
from edgekd.values.artifact import BOXES, Artifact, sha256_of
from edgekd.values.box_search import BoxSearch, unfit_candidates
from edgekd.values.candidate import Candidate
from edgekd.values.tree import Tree, leaves, like, mapped

OPERATOR = "TFLite_Detection_PostProcess"
"""The operator of LiteRT and TFLite Micro that decodes boxes beside anchors and suppresses them."""

CUSTOM = 32
"""The code of operators that have a name."""

RESULTS = ("boxes", "classes", "scores", "count")
"""Its outputs: (1, most, 4) as top, left, bottom and right, (1, most), (1, most) and (1,)."""

SMALL = 1e-12


class Encoded(nn.Module):
    """The network's outputs, each as (1, values), to what the operator reads: boxes (1, n, 4)
    beside anchors that are the whole image, and scores (1, n, 1 + classes), background first."""

    def __init__(self, search: BoxSearch, outputs: Tree, classes: int) -> None:
        super().__init__()
        self.search, self.outputs, self.classes = search, outputs, classes

    def forward(self, flat: Tree) -> tuple[Tensor, Tensor]:
        shapes = [leaf.shape[1:] for leaf in leaves(self.outputs)]
        pairs = zip(leaves(flat), shapes, strict=True)
        outputs = like(self.outputs, [leaf.reshape(-1, *shape) for leaf, shape in pairs])
        boxes, sure, names = self.search.candidates(outputs)
        x, y, width, height = boxes.float().unbind(2)
        sides = (height.clamp(min=SMALL).log(), width.clamp(min=SMALL).log())
        encoded = torch.stack([y - 0.5, x - 0.5, *sides], 2)
        its = names.unsqueeze(2) == torch.arange(-1, self.classes)
        return encoded, its.float() * sure.float().unsqueeze(2)


def with_boxes(
    artifact: Artifact, outputs: Tree, search: BoxSearch, classes: int, path: Path
) -> Artifact:
    """The file of `artifact` with a search behind it, written to `path`; its outputs are those of
    TFLite's detection operator, `RESULTS`. `outputs` is what the network gives for one sample.
    Raises `InputError` for candidates that can't be converted."""
    encoded = Encoded(search, mapped(lambda leaf: leaf[:1], outputs), classes).eval()
    flat = mapped(lambda leaf: leaf[:1].float().reshape(1, -1), outputs)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".boxes-") as folder:
        made = Path(folder) / "search.tflite"
        try:
            convert(Candidate(encoded, flat), made)
        except (InputError, ToolError) as error:
            raise unfit_candidates(error, "converted") from error
        behind = made.read_bytes()
    content = artifact.path.read_bytes()
    with torch.no_grad():
        places = encoded(flat)[0].shape[1]
    model = unpacked(content)
    search = replace(search, most=min(search.most, places))
    _Joined(model, unpacked(behind)).suppress(search, places, classes)
    write_beside(path, packed(model, len(content) + len(behind) + 16 * places + 4096))
    graph = read_tflite(path)
    return artifact.model_copy(
        update={
            "path": path,
            "sha256": sha256_of(path),
            "bytes": path.stat().st_size,
            "outputs": tuple(info_of(graph.tensors[key]) for key in graph.outputs),
            "facts": {**artifact.facts, BOXES: float(search.most)},
            "notes": (
                *artifact.notes,
                f"{path.name} decodes and suppresses boxes by itself, in float",
            ),
        }
    )


class _Joined:
    """A network's graph with another one, a float one, behind it."""

    def __init__(self, model: Any, behind: Any) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema, self.model = schema, model
        self.graph, self.behind = model.subgraphs[0], behind.subgraphs[0]
        self.writer = Writer(schema, model, self.graph)
        first, codes, buffers = (
            len(self.graph.tensors), len(model.operatorCodes), len(model.buffers),
        )  # fmt: skip
        for tensor in self.behind.tensors:
            tensor.name = b"search/" + (tensor.name or b"")
            tensor.buffer = tensor.buffer + buffers if tensor.buffer else 0
        for op in self.behind.operators:
            op.opcodeIndex += codes
            op.inputs = [place + first if place >= 0 else place for place in op.inputs]
            op.outputs = [place + first for place in op.outputs]
        network = [int(place) for place in self.graph.outputs]
        self.graph.tensors += self.behind.tensors
        model.operatorCodes += behind.operatorCodes
        model.buffers += behind.buffers
        for mine, its in zip(network, self.behind.inputs, strict=True):
            self._bridge(mine, int(its) + first)
        self.graph.operators = [*self.graph.operators, *self.behind.operators]
        self.encoded = [int(place) + first for place in self.behind.outputs]

    def _bridge(self, source: int, flat: int) -> None:
        """Hand one output over, in float, as one row."""
        schema, tensor = self.schema, self.graph.tensors[source]
        if tensor.type != schema.TensorType.FLOAT32:
            floats = self._float(list(tensor.shape), b"search/float")
            options = schema.DequantizeOptionsT()
            op = self.writer.operator(
                "DEQUANTIZE", [source], [floats], "DequantizeOptions", options
            )
            self.graph.operators = [*self.graph.operators, op]
            source = floats
        shape = np.array(self.graph.tensors[flat].shape, np.int32)
        constant = self.writer.constant(shape, schema.TensorType.INT32, None)
        options = schema.ReshapeOptionsT()
        options.newShape = shape
        op = self.writer.operator("RESHAPE", [source, constant], [flat], "ReshapeOptions", options)
        self.graph.operators = [*self.graph.operators, op]

    def _float(self, shape: list[int], name: bytes) -> int:
        tensor = self.schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = shape, self.schema.TensorType.FLOAT32, 0
        tensor.name = name
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def suppress(self, search: BoxSearch, places: int, classes: int) -> None:
        """Add the operator; its results become the graph's."""
        schema, most = self.schema, search.most
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = CUSTOM
        code.customCode, code.version = OPERATOR.encode(), 1
        self.model.operatorCodes.append(code)
        anchors = np.tile(np.array([[0.5, 0.5, 1, 1]], np.float32), (places, 1))
        anchor = self.writer.constant(anchors, schema.TensorType.FLOAT32, None)
        shapes = ([1, most, 4], [1, most], [1, most], [1])
        found = [
            self._float(shape, name.encode()) for name, shape in zip(RESULTS, shapes, strict=True)
        ]
        op = schema.OperatorT()
        op.opcodeIndex = len(self.model.operatorCodes) - 1
        op.inputs, op.outputs = [*self.encoded, anchor], found
        op.customOptions = np.frombuffer(_options(search, classes), np.uint8)
        self.graph.operators = [*self.graph.operators, op]
        self.graph.outputs, self.model.signatureDefs = found, []


def _options(search: BoxSearch, classes: int) -> bytes:
    """What the operator is told, as a flexbuffer."""
    from flatbuffers import flexbuffers

    # The operator takes scores from its threshold on, and suppresses above the overlap.
    least = np.nextafter(np.float32(search.confidence), np.float32(1))
    above = np.nextafter(np.float32(search.overlap), np.float32(0))
    whole = {
        "max_detections": search.most, "max_classes_per_detection": 1,
        "detections_per_class": search.most, "num_classes": classes,
    }  # fmt: skip
    shares = {
        "nms_score_threshold": float(least), "nms_iou_threshold": float(above),
        "y_scale": 1.0, "x_scale": 1.0, "h_scale": 1.0, "w_scale": 1.0,
    }  # fmt: skip
    builder = flexbuffers.Builder()
    with builder.Map():
        for name, number in whole.items():
            builder.Key(name)
            builder.Int(number)
        builder.Key("use_regular_nms")
        builder.Bool(True)
        for name, share in shares.items():
            builder.Key(name)
            builder.Float(share)
    return bytes(builder.Finish())
