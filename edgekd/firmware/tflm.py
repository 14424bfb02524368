"""A TFLite file as sources for TensorFlow Lite Micro: an aligned constant array, a header, and a
resolver that registers exactly the operators in use.

`NAME_model.c` and `NAME_model.h` are C11 and C++; `NAME_resolver.h` is C++ and needs the micro
runtime's headers. The same file, name and arena give the same text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekd.errors import InputError, nearest
from edgekd.firmware.facts import Facts, check_name, fact_lines, name_from
from edgekd.firmware.render import by_label, render
from edgekd.formats.graph import read_bytes
from edgekd.formats.tflite import read_tflite
from edgekd.store import write_beside
from edgekd.values.measurement import Measurement

PER_LINE = 16
ALIGNMENT = 16
"""The alignment that the micro runtime needs for the model and the arena."""

# tflite-micro, tensorflow/lite/micro/micro_mutable_op_resolver.h: methods whose name is not the
# operator's in camel case.
METHODS: Mapping[str, str] = {
    "AVERAGE_POOL_2D": "AddAveragePool2D",
    "BATCH_MATMUL": "AddBatchMatMul",
    "CONV_2D": "AddConv2D",
    "CUMSUM": "AddCumSum",
    "CUSTOM ethos-u": "AddEthosU",
    "CUSTOM TFLite_Detection_PostProcess": "AddDetectionPostprocess",
    "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D",
    "L2_POOL_2D": "AddL2Pool2D",
    "MAX_POOL_2D": "AddMaxPool2D",
    "PADV2": "AddPadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
}

# The others, whose method is the operator's name in camel case.
PLAIN = (
    "ABS", "ADD", "ADD_N", "ARG_MAX", "ARG_MIN", "BATCH_TO_SPACE_ND", "BROADCAST_ARGS",
    "BROADCAST_TO", "CAST", "CEIL", "CONCATENATION", "COS", "DEPTH_TO_SPACE", "DEQUANTIZE", "DIV",
    "ELU", "EQUAL", "EXP", "EXPAND_DIMS", "FILL", "FLOOR", "FLOOR_DIV", "FLOOR_MOD",
    "FULLY_CONNECTED", "GATHER", "GATHER_ND", "GREATER", "GREATER_EQUAL", "HARD_SWISH",
    "L2_NORMALIZATION", "LEAKY_RELU", "LESS", "LESS_EQUAL", "LOG", "LOGICAL_AND", "LOGICAL_NOT",
    "LOGICAL_OR", "LOGISTIC", "LOG_SOFTMAX", "MAXIMUM", "MEAN", "MINIMUM", "MIRROR_PAD", "MUL",
    "NEG", "NOT_EQUAL", "PACK", "PAD", "PRELU", "QUANTIZE", "REDUCE_MAX", "REDUCE_MIN", "RELU",
    "RELU6", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "ROUND", "RSQRT",
    "SELECT_V2", "SHAPE", "SIN", "SLICE", "SOFTMAX", "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH",
    "SPLIT", "SPLIT_V", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "SQUEEZE", "STRIDED_SLICE", "SUB",
    "SUM", "SVDF", "TANH", "TRANSPOSE", "TRANSPOSE_CONV", "UNPACK", "ZEROS_LIKE",
)  # fmt: skip


@dataclass(frozen=True)
class MicroSources:
    """The three texts, and the operators that the resolver registers."""

    name: str
    header: str
    source: str
    resolver: str
    ops: tuple[str, ...]

    def write(self, folder: Path) -> tuple[Path, Path, Path]:
        """Write NAME_model.h, NAME_model.c and NAME_resolver.h; each file is replaced
        atomically."""
        texts = {
            folder / f"{self.name}_model.h": self.header,
            folder / f"{self.name}_model.c": self.source,
            folder / f"{self.name}_resolver.h": self.resolver,
        }
        for path, text in texts.items():
            write_beside(path, text)
        first, second, third = texts
        return first, second, third


def micro_sources(
    path: Path, arena: Measurement, name: str = "", facts: Facts | None = None
) -> MicroSources:
    """Sources for the model in a TFLite file.

    `arena` is the result of `measure_arena`; if it has no value, the header says why instead of
    giving a size. Raises `InputError` for a damaged file, a name that is not valid in C, or an
    operator that the micro runtime does not have.
    """
    graph = read_tflite(path)
    if not graph.inputs or not graph.outputs:
        raise InputError("it has no input or no output", where=str(path))
    name = check_name(name) if name else name_from(path.stem)
    methods = {op: method_of(op, str(path)) for op in sorted(graph.counts)}
    content = read_bytes(path)
    inputs = [graph.tensors[key] for key in graph.inputs]
    outputs = [graph.tensors[key] for key in graph.outputs]
    header = render(
        "micro_model.h",
        name,
        facts=fact_lines(name.upper(), facts or Facts()),
        size=len(content),
        alignment=ALIGNMENT,
        arena=arena,
        tensors=by_label("INPUT", inputs) | by_label("OUTPUT", outputs),
    )
    return MicroSources(
        name,
        header,
        render("micro_model.c", name, rows=_rows(content)),
        render("micro_resolver.h", name, methods=list(methods.values())),
        tuple(methods),
    )


def method_of(op: str, where: str) -> str:
    """The resolver's method for an operator: AddConv2D for CONV_2D."""
    if op in METHODS:
        return METHODS[op]
    if op in PLAIN:
        return "Add" + "".join(part.capitalize() for part in op.split("_"))
    known = [*METHODS, *PLAIN]
    raise InputError(
        f"TensorFlow Lite Micro has no operator {op}",
        where=where,
        allowed=", ".join(sorted(known)),
        hint=nearest(op, known),
    )


def _rows(content: bytes) -> list[str]:
    """The bytes as C constants, `PER_LINE` per line."""
    return [
        " ".join(f"0x{byte:02x}," for byte in content[start : start + PER_LINE])
        for start in range(0, len(content), PER_LINE)
    ]
