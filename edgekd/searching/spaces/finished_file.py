"""An ONNX or TFLite file alone, which can only be quantized without training."""

from edgekd.registry import SPACES
from edgekd.searching.spaces import Facts, Space, Stages


@SPACES.register(paper="https://arxiv.org/abs/1712.05877")
class FinishedFile(Space):
    """The file's type: as it is, or narrower without training."""

    def suits(self, facts: Facts) -> float:
        """All of a finished file, nothing of a network."""
        return 2.0 if facts.finished_file else 0.0

    def stages(self, facts: Facts) -> Stages:
        """Quantize, or leave the file as it is."""
        dtypes = ["int8"] if facts.finished_file == "onnx" else ["int8", "int4", "fp16"]
        narrow: Stages = [
            {"kind": "quantize", "method": "calibrate", "dtype": dtype} for dtype in dtypes
        ]
        if facts.finished_file == "onnx":
            corrected = {"one_of": [True, False]}
            narrow = [{**stage, "bias_correction": corrected} for stage in narrow]
        return [{"one_of": [*narrow, {}]}]
