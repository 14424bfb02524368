"""The several outputs of a file: which one the task reads, and what their parity is together."""

from collections.abc import Mapping, Sequence

from edgekd.measure.parity import Parity


def main_output(names: Sequence[str]) -> int:
    """The position of the output that the task reads: "logits" where there is one, else the
    first."""
    return list(names).index("logits") if "logits" in names else 0


def joint_parity(outputs: Mapping[str, Parity], main: str) -> Parity:
    """The main output's parity, with every output's own in `outputs` if there are several. It
    fails if one of them fails, and names that one's fault."""
    parity = outputs[main]
    if len(outputs) == 1:
        return parity
    failed = [name for name, each in outputs.items() if each.verdict == "fail"]
    changes: dict[str, object] = {"outputs": dict(outputs)}
    if failed and parity.verdict == "pass":
        strayed = outputs[failed[0]]
        fault = strayed.first_difference or strayed.reason
        changes |= {"verdict": "fail", "first_difference": f"output '{failed[0]}': {fault}"}
    return parity.model_copy(update=changes)
