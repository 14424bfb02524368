"""One trial of a search as a run: it trains, is stopped, and goes on from where it was stopped."""

import pytest
from searches import write_case

from edgekd.searching.outcome import Course, RungScore
from edgekd.searching.request import SearchOptions, make_search
from edgekd.searching.stopping import Watch
from edgekd.searching.study import Proposal
from edgekd.searching.trial import run_trial
from edgekd.training.checkpoint import read_tensors
from edgekd.training.loop import CHECKPOINT
from edgekd.values.progress import silent

RECOVERY = "prune, step 1, recovery"


def rival(*accuracies):
    """A trial with a tiny network and these accuracies at the rungs of pruning."""
    scores = tuple(
        RungScore(training=RECOVERY, quarters=rung, epoch=rung, epochs=4, accuracy=accuracy)
        for rung, accuracy in enumerate(accuracies, 1)
    )
    return Course(sizes={"small: bytes": 1, "small: memory_bytes": 1}, scores=scores)


@pytest.mark.slow
def test_a_stopped_trial_keeps_its_last_epoch_and_another_with_its_recipe_goes_on(tmp_path):
    write_case(tmp_path)
    asked = {
        "target": tmp_path / "small.toml",
        "out": tmp_path / "s",
        "settings": ["stage.prune.epochs=4"],
        "cache": tmp_path / "cache",
    }
    search = make_search(tmp_path / "r.toml", asked, SearchOptions(trials=2))
    parameters = {"stages.2.amount": 0.5}

    watch = Watch("halving", lambda: [rival(1.0)] * 4, lambda course: None)
    stopped = run_trial(search, Proposal(0, 0, parameters, "key"), [], watch, silent)
    assert stopped.state == "stopped"
    assert stopped.message.startswith(f"stopped at epoch 1 of 4 ({RECOVERY})")
    assert stopped.message.endswith("whose network is no larger was 100.00 %")
    assert stopped.course == watch.course
    assert watch.course.sizes["small: bytes"] > 1000
    (checkpoint,) = [
        path
        for path in (tmp_path / "s/stages/unfinished").rglob(CHECKPOINT)
        if path.parent.name == "recovery"
    ]
    before = read_tensors(checkpoint)[1]["history"]
    assert len(before) == 1

    again = Watch("halving", lambda: [rival(0.0, 1.0)] * 4, lambda course: None)
    stopped = run_trial(search, Proposal(1, 1, parameters, "key"), [], again, silent)
    assert stopped.message.startswith(f"stopped at epoch 2 of 4 ({RECOVERY})")
    after = read_tensors(checkpoint)[1]["history"]
    assert len(after) == 2
    assert after[0] == before[0]  # the loss too: the first epoch was not trained again
    assert again.course.scores[0] == watch.course.scores[0]
