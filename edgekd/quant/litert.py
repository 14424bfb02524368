"""The converter's own process: `python -m edgekd.quant.litert graph.pt2 model.tflite int8 1,1,8,8`.
Only the TFLite backend starts it, and only this module imports litert-torch.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.quant import rewrite  # registers the operators that the file has
from edgekd.quant.quantizer import TargetQuantizer
from edgekd.values.target import Scheme


class _ChannelsLast(nn.Module):
    """Wraps a module with (N, C, H, W) inputs so that it takes (N, H, W, C)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.module(x.permute(0, 3, 1, 2))
        return output


def main(program: str, made: str, form: str, shape: str) -> None:
    """Convert one program; any error ends the process with a traceback and exit status 1."""
    assert rewrite.QUANTIZE
    example = torch.zeros([int(size) for size in shape.split(",")])
    # The backend wrote this file a moment ago; it is not one from outside.
    module: nn.Module = torch.export.load(program).module(check_guards=False)
    if example.dim() == 4:
        module = _ChannelsLast(module)
        example = example.permute(0, 2, 3, 1).contiguous()
    Path(made).write_bytes(_convert(module, example, form))


def _convert(module: nn.Module, example: Tensor, form: str) -> bytes:
    import litert_torch

    options: dict[str, Any] = {}
    if form == "int8":
        from litert_torch.quantize.quant_config import QuantConfig

        # Only `global_config` of it is read: the graph is quantized already.
        quantizer = TargetQuantizer(Scheme(activations="int8-affine"))
        options["quant_config"] = QuantConfig(pt2e_quantizer=quantizer)
    model = litert_torch.convert(module, (example,), **options)
    content: bytes = model.model_content()
    return _half_weights(content) if form == "fp16" else content


def _half_weights(content: bytes) -> bytes:
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
