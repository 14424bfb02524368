"""A measured value with its interval, protocol and conditions, and its check against a budget."""

from collections.abc import Mapping
from typing import Literal

from edgekd.values.tables import Value

Kind = Literal["measured", "simulated", "estimated", "unavailable"]
"""measured: on the device itself; simulated: by an emulator or a vendor's cycle model;
estimated: by a formula; unavailable: there is no value, and the reason says why."""

Verdict = Literal["pass", "fail", "unverified"]


class Measurement(Value):
    """One metric of one artifact on one device; a missing value is None with a reason, never 0.

    `metric` ends in its unit: `latency_ms_p50`, `peak_memory_bytes`, `energy_mj`, `accuracy`.
    `ci` is the bootstrap interval of `value`. `protocol` says how it was taken (runs, windows,
    threads, quick or full); `conditions` records governor, temperature, versions and the like.
    """

    metric: str
    value: float | None
    kind: Kind
    device: str
    ci: tuple[float, float] | None = None
    reason: str = ""
    protocol: str = ""
    conditions: dict[str, str] = {}
    samples: tuple[float, ...] = ()


def unavailable(
    metric: str,
    reason: str,
    *,
    device: str,
    protocol: str = "",
    conditions: Mapping[str, str] | None = None,
) -> Measurement:
    """A metric without a value, and the reason."""
    return Measurement(
        metric=metric,
        value=None,
        kind="unavailable",
        device=device,
        reason=reason,
        protocol=protocol,
        conditions=dict(conditions or {}),
    )


def cost_words(cost: Measurement) -> str:
    """A predicted cost, such as '12,345 instructions' or '1.234 ms'; 'unknown' without a value."""
    if cost.value is None:
        return "unknown"
    if cost.metric == "instructions":
        return f"{cost.value:,.0f} instructions"
    return f"{cost.value:.4g} ms"


class Judgement(Value):
    """A budget checked against its measurement; `kind` is that of the measurement used."""

    metric: str
    limit: float
    value: float | None
    kind: Kind
    verdict: Verdict
    reason: str = ""
