"""Conditions of a run that cast doubt on its quality, compared with what they should be."""

import numpy as np

from edgekd.devices import Samples
from edgekd.measure.meters.latency import fastest, stretch_of, undisturbed

HOT_CELSIUS = 80.0
"""Most boards begin to throttle at 80 to 85 degrees."""

DISTURBED = 0.1
"""If the median run takes this much longer than the fastest stretch, something else
slowed it down."""


def quality_warnings(samples: Samples, after_work: bool = False) -> tuple[str, ...]:
    """A warning for each condition that makes times longer or less steady than they could be.

    They do not invalidate a run; throttling does. `after_work` says that edgekd itself was just
    busy on the same machine, so that the load average of the last minute means nothing.
    """
    if samples.invalid or not samples.windows_ms:
        return ()
    conditions = samples.conditions
    warnings: list[str] = []
    governor = conditions.get("governor", "")
    if governor not in ("", "performance"):
        warnings.append(f"the governor is '{governor}': clocks change with the load")
    if conditions.get("warm_up_settled") == "no":
        warnings.append("the warm-up did not converge: windows still differed by more than 2 %")
    load = _number(conditions.get("load", ""))
    if load is not None and load >= 1.0 and not after_work:
        warnings.append(f"the machine was already busy with other work (load {load:g})")
    median = float(np.median(np.concatenate(samples.windows_ms)))
    excess = median / float(undisturbed(fastest(samples, stretch_of(samples)))) - 1
    if excess > DISTURBED:
        warnings.append(
            f"the median run took {100 * excess:.0f} % longer than the fastest consecutive runs: "
            "other work shares the processor, or its clock changes"
        )
    now, highest = (
        _number(conditions.get(key, "")) for key in ("frequency_khz", "highest_frequency_khz")
    )
    if now is not None and highest and now < 0.9 * highest and governor == "performance":
        warnings.append(
            f"the clock was at {now / 1e3:g} MHz, below its maximum of {highest / 1e3:g} MHz"
        )
    heat = [_number(conditions.get(key, "")) for key in ("temperature_c", "temperature_c_after")]
    hottest = max((each for each in heat if each is not None), default=0.0)
    if hottest >= HOT_CELSIUS:
        warnings.append(f"its temperature was {hottest:g} degrees Celsius, close to throttling")
    return tuple(warnings)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
