"""How lines of the plan and the lineage name a quantization."""

from edgekd.values.target import Scheme


def scheme_name(scheme: Scheme) -> str:
    """The types of activations and weights."""
    channels = "per channel" if scheme.per_channel else "per tensor"
    return f"{scheme.activations}, {scheme.weight_bits}-bit weights {channels}"


def narrow_name(dtype: str, group: int) -> str:
    """The type of narrow weights, and what shares a scale."""
    groups = "channel" if not group else f"{group} weights"
    scales = "" if dtype == "bf16" else f", one scale per {groups}"
    return f"{dtype} weights{scales}"
