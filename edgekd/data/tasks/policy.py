"""Actions for states: a policy distilled on the states that it meets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from edgekd.data.tasks import Direction, FirstSamples, Run
from edgekd.data.tasks._cart_pole import returns
from edgekd.data.tasks.classification import Classification
from edgekd.registry import TASKS


@TASKS.register(paper="https://arxiv.org/abs/1511.06295")
@dataclass(frozen=True)
class Policy(Classification):
    """Actions for visited states: logits (B, actions), labels (B,) the expert's actions.

    The score is the agreement with the expert. If an `environment` is named, the deployed file also
    acts in it, for `episodes` of at most `steps`, and the report has its mean return.
    """

    environment: Literal["none", "cart-pole"] = "none"
    episodes: int = 32
    steps: int = 200
    metric: ClassVar[str] = "action agreement"
    directions: ClassVar[Mapping[str, Direction]] = {"episode_return": "higher"}
    moves: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("episodes", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")

    def measured(self) -> tuple[str, ...]:
        """`episode_return` where there is an environment to act in."""
        return () if self.environment == "none" else super().measured()

    def rollout_metrics(self, run: Run, first: FirstSamples) -> Mapping[str, Tensor]:
        """`episode_return`: the steps that each pole stays up."""
        if self.environment == "none":
            return {}

        def act(state: Tensor) -> Tensor:
            return run(state).argmax(1)

        return {"episode_return": returns(act, self.episodes, self.steps, seed=0)}
