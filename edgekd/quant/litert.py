"""The converter's own process: `python -m edgekd.quant.litert graph.pt2 model.tflite int8`.
Only the TFLite backend starts it, and only this module imports litert-torch.
"""

import functools
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekd.quant import rewrite  # registers the operators that the file has
from edgekd.quant.named_layers import NamedLayers
from edgekd.quant.quantizer import TargetQuantizer
from edgekd.quant.storage import example_of
from edgekd.values.target import Scheme
from edgekd.values.tree import Tree, leaves, like, mapped

PRELOADED = ("litert_torch",)


class _ByPosition(nn.Module):
    """Wraps a module of one argument, a tree, so that it takes and returns tensors by position.
    Images (N, C, H, W) are taken as (N, H, W, C)."""

    def __init__(self, module: nn.Module, example: Tree) -> None:
        super().__init__()
        self.module, self.example = module, example
        self.training = False

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        planes = [x.permute(0, 3, 1, 2) if is_image(x) else x for x in inputs]
        # `forward` itself, so that the converter puts no module between this one and the layers.
        return tuple(leaves(self.module.forward(like(self.example, planes))))


def is_image(x: Tensor) -> bool:
    """Whether a TFLite file takes this input with its channels last: (N, C, H, W) of floats."""
    return x.dim() == 4 and x.is_floating_point()


def main(program: str, made: str, form: str) -> None:
    """Convert one program; any error ends the process with a traceback and exit status 1."""
    assert rewrite.QUANTIZE
    # The backend wrote this file a moment ago; it is not one from outside.
    module = torch.export.load(program).module(check_guards=False)
    example = mapped(lambda leaf: leaf[:1], example_of(module))
    whole = _ByPosition(NamedLayers(module), example)
    inputs = [x.permute(0, 2, 3, 1).contiguous() if is_image(x) else x for x in leaves(example)]
    Path(made).write_bytes(_convert(whole, tuple(inputs), form))


def _convert(module: nn.Module, inputs: tuple[Tensor, ...], form: str) -> bytes:
    import litert_torch

    options: dict[str, Any] = {}
    _keep_layouts()
    if form == "int8":
        from litert_torch.quantize.quant_config import QuantConfig

        # Only `global_config` of it is read: the graph is quantized already.
        quantizer = TargetQuantizer(Scheme(activations="int8-affine"))
        options["quant_config"] = QuantConfig(pt2e_quantizer=quantizer)
    model = litert_torch.convert(module, inputs, **options)
    content: bytes = model.model_content()
    return half_weights(content) if form == "fp16" else content


@functools.cache
def _keep_layouts() -> None:
    """Mend litert-torch 0.10, once: it forgets the shape and the layout of a dequantize op as soon
    as one of its readers gets a transpose, so that the others are handed the wrong layout."""
    from litert_torch._convert.fx_passes import OptimizeLayoutTransposesPass

    insert = OptimizeLayoutTransposesPass.insert_t_q_dq

    def insert_beside(self: Any, graph: Any, source: fx.Node, *others: Any) -> Any:
        meta = dict(source.meta)
        nodes = insert(self, graph, source, *others)
        source.meta = meta
        return nodes

    OptimizeLayoutTransposesPass.insert_t_q_dq = insert_beside


def half_weights(content: bytes) -> bytes:
    """The same model with its constants in fp16, each followed by a DEQUANTIZE operator."""
    from ai_edge_quantizer import qtyping, quantizer

    half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    casting = quantizer.Quantizer(bytearray(content))
    casting.update_quantization_recipe(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        algorithm_key=quantizer.AlgorithmName.FLOAT_CASTING,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=half, compute_precision=qtyping.ComputePrecision.FLOAT
        ),
    )
    return bytes(casting.quantize().quantized_model)


if __name__ == "__main__":
    main(*sys.argv[1:])
