"""What speaks against a run that was not invalid: its conditions, held against what they ought."""

import numpy as np

from edgekd.devices import Samples
from edgekd.measure.meters.latency import fastest, stretch_of, undisturbed

HOT_CELSIUS = 80.0
"""Most boards begin to throttle at 80 to 85 degrees."""

DISTURBED = 0.1
"""So much longer than in the fastest stretch takes the median run of what something else slows."""


def doubts(samples: Samples, after_work: bool = False) -> tuple[str, ...]:
    """A sentence for each condition under which times are larger or less steady than they could
    be. They do not make a run invalid; one that throttled is. `after_work` of our own on the same
    machine its load average, of the last minute, says nothing."""
    if samples.invalid or not samples.windows_ms:
        return ()
    told, found = samples.conditions, []
    governor = told.get("governor", "")
    if governor not in ("", "performance"):
        found.append(f"the governor is '{governor}': clocks change with the load")
    if told.get("warm_up_settled") == "no":
        found.append("the warm-up did not settle: windows still differed by more than 2 %")
    load = _number(told.get("load", ""))
    if load is not None and load >= 1.0 and not after_work:
        found.append(f"the machine was busy with other work before (load {load:g})")
    median = float(np.median(np.concatenate(samples.windows_ms)))
    more = median / float(undisturbed(fastest(samples, stretch_of(samples)))) - 1
    if more > DISTURBED:
        found.append(
            f"the median run took {100 * more:.0f} % longer than the fastest in a row: other work "
            "shares the processor, or its clock changes"
        )
    now, highest = (
        _number(told.get(key, "")) for key in ("frequency_khz", "highest_frequency_khz")
    )
    if now is not None and highest and now < 0.9 * highest and governor == "performance":
        found.append(f"the clock was {now / 1e3:g} MHz, and {highest / 1e3:g} MHz is the highest")
    heat = [_number(told.get(key, "")) for key in ("temperature_c", "temperature_c_after")]
    hottest = max((each for each in heat if each is not None), default=0.0)
    if hottest >= HOT_CELSIUS:
        found.append(f"it was {hottest:g} degrees Celsius warm, close to throttling")
    return tuple(found)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
