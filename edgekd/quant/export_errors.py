"""What an error of torch.export comes from, in words about the user's `forward`."""

import re
from pathlib import Path

from edgekd.errors import summary_of

_GUARD = re.compile(r"^ *- Not all values of .* satisfy the generated guard (.+?)\.?$", re.M)
_SIZE = re.compile(r"L\[['\"]\w+['\"]\](?:\[[^\]]*\])*\.size\(\)\[0\]")
_CALL = re.compile(r'following call raised this error:\s+File "(.+)", line (\d+), in .+\n *(\S.*)')


def cause_of(error: BaseException) -> str:
    """The constraint that a trace broke, or the line of code that stopped it; otherwise the
    error's first line. The exporter's own first line says only that there is one."""
    text = str(error)
    if "specialized it to be a constant" in text:
        return "forward() works for one batch size alone"
    guard = _GUARD.search(text)
    if guard:
        return f"forward() takes another path unless {_SIZE.sub('batch', guard[1])}"
    call = _CALL.search(text)
    if call and "data-dependent" in text:
        place = f"{Path(call[1]).name}, line {call[2]}"
        return f"forward() depends on the values of a tensor in '{call[3].strip()}' ({place})"
    return summary_of(error)
