"""Flow of the solution procedure against numbers computed by hand."""

import pytest
import torch

from edgekd.training.losses.fsp import FSP

FIRST, SECOND = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, 4.0]]]])


def test_the_value_is_the_hand_computed_one():
    zeros = [torch.zeros(1, 1, 1, 2)] * 2
    assert FSP()([FIRST, SECOND], zeros).item() == 5.5**2  # (1 * 3 + 2 * 4) / 2


def test_the_larger_map_is_max_pooled():
    larger = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    zeros = [torch.zeros(1, 1, 1, 1)] * 2
    assert FSP()([larger, torch.tensor([[[[5.0]]]])], zeros).item() == 400.0


def test_neighbouring_pairs_are_averaged():
    zeros = [torch.zeros(1, 1, 1, 2)] * 3
    # FIRST with itself: (1 + 4) / 2.
    assert FSP()([FIRST, FIRST, SECOND], zeros).item() == (2.5**2 + 5.5**2) / 2


def test_channel_counts_may_not_differ_and_vectors_have_no_flow():
    with pytest.raises(ValueError, match="as many channels on both sides, found 4 and 8"):
        FSP().prepare([(4, 2, 2), (4, 2, 2)], [(4, 2, 2), (8, 2, 2)])
    with pytest.raises(ValueError, match=r"needs maps \(C, H, W\), found \(4,\)"):
        FSP().prepare([(4,), (4,)], [(4,), (4,)])
