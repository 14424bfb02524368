"""The precisions that `dtype = "auto"` compares: int8, and fp16 and fp32 beside it."""

from dataclasses import replace

from edgekd.errors import EdgekdError, InputError
from edgekd.quant.faults import number_faults
from edgekd.values.candidate import Candidate


def auto_faults(strict: bool, where: str) -> list[EdgekdError]:
    """A fault if only integers are allowed, which leaves nothing to compare."""
    if not strict:
        return []
    text = "strict leaves nothing in float, and auto compares with files that are all float"
    return [InputError(text, where=f"{where}.strict", hint="dtype = \"int8\", or remove 'strict'")]


def with_wider(quantized: Candidate, floating: Candidate) -> Candidate:
    """The quantized candidate, which asks for files in half and single precision beside it. Half
    precision is left out if it can't hold the weights of `floating`, and the notes say why."""
    faults = number_faults(floating, "fp16", "")
    if not faults:
        return replace(quantized, also=("fp16", "float"))
    note = f"fp16 is not compared: {faults[0].message}"
    return replace(quantized, also=("float",), notes=(*quantized.notes, note))
