"""The steps of a gradual pruning: how much is gone after each, and how long each recovers."""


def shares(schedule: str, steps: int) -> list[float]:
    """The share of the whole amount that is gone after each step; the last is 1.

    "one-shot" has one step, "iterative" equal ones, and "cubic" follows 1 - (1 - t)^3
    (Zhu & Gupta 2017, arXiv:1710.01878, eq. 1): most goes early, while there is time to recover.
    """
    if schedule == "one-shot":
        return [1.0]
    line = [number / steps for number in range(1, steps + 1)]
    return line if schedule == "iterative" else [1 - (1 - t) ** 3 for t in line]


def split_epochs(epochs: int, steps: int) -> list[int]:
    """The recovery epochs of each step; what does not divide goes to the last."""
    each = epochs // steps
    return [*[each] * (steps - 1), epochs - each * (steps - 1)]
