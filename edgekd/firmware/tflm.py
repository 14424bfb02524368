"""A TFLite file as sources for TensorFlow Lite Micro: an aligned constant array, a header, and a
resolver that registers exactly the operators used.

`NAME_model.c` and `NAME_model.h` are C11 and C++; `NAME_resolver.h` is C++ and needs the micro
runtime's headers. The same file, name and arena give the same text.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.errors import InputError, nearest
from edgekd.firmware.emit import float_text, labels
from edgekd.firmware.facts import Facts, check_name, fact_lines, name_from
from edgekd.formats.graph import Graph, Tensor, read_bytes
from edgekd.formats.tflite import read_tflite
from edgekd.store import write_beside
from edgekd.values.measurement import Measurement
from edgekd.version import __version__

ALIGNMENT = 16
"""What the micro runtime wants of the model and of the arena."""

PER_LINE = 16

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
        """NAME_model.h, NAME_model.c and NAME_resolver.h, each written beside and renamed."""
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

    `arena` is what `measure_arena` gave; where it has no value, the header says why instead of a
    size. Raises `InputError` for a damaged file, a name that C does not take, or an operator that
    the micro runtime does not have.
    """
    graph = read_tflite(path)
    if not graph.inputs or not graph.outputs:
        raise InputError("it has no input or no output", where=str(path))
    name = check_name(name) if name else name_from(path.stem)
    methods = {op: method_of(op, str(path)) for op in sorted(graph.counts)}
    content = read_bytes(path)
    return MicroSources(
        name,
        _header(name, graph, len(content), arena, facts or Facts()),
        _source(name, content),
        _resolver(name, methods),
        tuple(methods),
    )


def method_of(op: str, where: str) -> str:
    """The resolver's method for an operator: CONV_2D has AddConv2D."""
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


def _header(name: str, graph: Graph, size: int, arena: Measurement, facts: Facts) -> str:
    macro = name.upper()
    lines = [
        f"/* {name}: a model for TensorFlow Lite Micro, written by edgekd {__version__}. */",
        f"#ifndef {macro}_MODEL_H",
        f"#define {macro}_MODEL_H",
        "",
        "#include <stdint.h>",
        "",
        *fact_lines(macro, facts),
        f"#define {macro}_MODEL_BYTES {size}",
        f"#define {macro}_MODEL_ALIGNMENT {ALIGNMENT}",
        *_arena_lines(macro, arena),
        "",
    ]
    for kind, keys in (("INPUT", graph.inputs), ("OUTPUT", graph.outputs)):
        for label, key in zip(labels(kind, len(keys)), keys, strict=True):
            lines += _tensor_lines(f"{macro}_{label}", graph.tensors[key])
    lines += [
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f"/* The flatbuffer, {ALIGNMENT}-byte aligned; it stays where it is, in flash. */",
        f"extern const uint8_t {name}_model[{macro}_MODEL_BYTES];",
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _arena_lines(macro: str, arena: Measurement) -> list[str]:
    if arena.value is None:
        return [f"/* {macro}_ARENA_BYTES is not known: {_comment(arena.reason)} */"]
    runtime = arena.conditions.get("tflite-micro", "?")
    return [
        f"/* Measured with tflite-micro {runtime} and 8-byte pointers; 4-byte ones take less. */",
        f"#define {macro}_ARENA_BYTES {int(arena.value)}",
        f"#define {macro}_ARENA_ALIGNMENT {ALIGNMENT}",
    ]


def _comment(text: str) -> str:
    """Words that can't end the comment they stand in."""
    return re.sub(r"[^ -~]", "?", text).replace("*/", "* /")


def _tensor_lines(label: str, tensor: Tensor) -> list[str]:
    sizes = tensor.shape or ()
    lines = [
        f"#define {label}_SHAPE {{{', '.join(str(size) for size in sizes) or '1'}}}",
        f"#define {label}_RANK {max(len(sizes), 1)}",
        f"#define {label}_TYPE_{re.sub('[^A-Z0-9]', '_', tensor.dtype.upper())} 1",
    ]
    if tensor.bytes is not None:
        lines.append(f"#define {label}_BYTES {tensor.bytes}")
    if len(tensor.scales) == 1 and len(tensor.zero_points) == 1:
        lines += [
            f"#define {label}_SCALE {float_text(tensor.scales[0])}",
            f"#define {label}_ZERO_POINT ({tensor.zero_points[0]})",
        ]
    return [*lines, ""]


def _source(name: str, content: bytes) -> str:
    macro = name.upper()
    rows = [
        "    " + ", ".join(f"0x{byte:02x}" for byte in content[start : start + PER_LINE]) + ","
        for start in range(0, len(content), PER_LINE)
    ]
    return "\n".join(
        [
            f"/* {name}, written by edgekd {__version__}; see {name}_model.h. */",
            f'#include "{name}_model.h"',
            "",
            "#ifdef __cplusplus",
            f"alignas({macro}_MODEL_ALIGNMENT)",
            "#else",
            f"_Alignas({macro}_MODEL_ALIGNMENT)",
            "#endif",
            f"const uint8_t {name}_model[{macro}_MODEL_BYTES] = {{",
            *rows,
            "};",
            "",
        ]
    )


def _resolver(name: str, methods: Mapping[str, str]) -> str:
    macro, kind = name.upper(), f"tflite::MicroMutableOpResolver<{len(methods)}>"
    calls: Sequence[str] = [f"resolver.{method}()" for method in methods.values()]
    checks = [f"    if ({call} != kTfLiteOk) return kTfLiteError;" for call in calls]
    return "\n".join(
        [
            f"// {name}: exactly the operators that it uses, written by edgekd {__version__}.",
            f"#ifndef {macro}_RESOLVER_H",
            f"#define {macro}_RESOLVER_H",
            "",
            '#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"',
            "",
            f"using {name}_op_resolver = {kind};",
            "",
            f"inline TfLiteStatus {name}_register_ops({name}_op_resolver &resolver) {{",
            *checks,
            "    return kTfLiteOk;",
            "}",
            "",
            "#endif",
            "",
        ]
    )
