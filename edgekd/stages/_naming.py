"""How lines of the plan and the lineage name a quantization."""

from edgekd.values.target import Scheme


def scheme_name(scheme: Scheme, bits: int = 8) -> str:
    """The types of activations, which have so many bits, and weights."""
    channels = "per channel" if scheme.per_channel else "per tensor"
    activations = "int16-symmetric" if bits == 16 else scheme.activations
    return f"{activations}, {scheme.weight_bits}-bit weights {channels}"


def narrow_name(dtype: str, group: int) -> str:
    """The type of narrow weights, and what shares a scale."""
    groups = "channel" if not group else f"{group} weights"
    scales = "" if dtype == "bf16" else f", one scale per {groups}"
    return f"{dtype} weights{scales}"
