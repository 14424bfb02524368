import random

import pytest

from edgekd.firmware.memory import Block, Trail, live_bound, plan_memory
from edgekd.firmware.memory import _first_fit as first_fit
from edgekd.firmware.memory import _height as height
from edgekd.firmware.memory import _orders as orders


def overlaps(one, other):
    return one.first <= other.last and other.first <= one.last


def assert_sound(blocks, plan):
    for number, block in enumerate(blocks):
        assert plan.offsets[number] % 4 == 0
        assert plan.offsets[number] + block.size <= plan.arena_bytes
        for other in range(number):
            if overlaps(block, blocks[other]):
                low, high = sorted((number, other), key=lambda n: plan.offsets[n])
                assert plan.offsets[low] + blocks[low].size <= plan.offsets[high]


def test_a_chain_needs_its_two_largest_neighbours():
    blocks = [Block(100, 0, 1), Block(400, 1, 2), Block(200, 2, 3), Block(40, 3, 4)]
    plan = plan_memory(blocks)
    assert (plan.arena_bytes, plan.bound_bytes) == (600, 600)
    assert_sound(blocks, plan)


def test_blocks_that_never_meet_share_one_place():
    plan = plan_memory([Block(64, 0, 0), Block(64, 1, 1), Block(64, 2, 2)])
    assert plan.offsets == (0, 0, 0)
    assert plan.arena_bytes == 64


def test_sizes_are_rounded_up_to_words():
    plan = plan_memory([Block(1, 0, 1), Block(2, 0, 1)])
    assert plan.arena_bytes == live_bound([Block(1, 0, 1), Block(2, 0, 1)]) == 8


def test_a_plan_that_every_greedy_order_misses_is_found_by_search():
    blocks = [Block(16, 1, 3), Block(8, 4, 5), Block(12, 4, 6), Block(12, 3, 5)]
    greedy = [first_fit(blocks, order, {}) for order in orders(blocks)]
    assert min(height(blocks, offsets) for offsets in greedy) == 36
    plan = plan_memory(blocks)
    assert_sound(blocks, plan)
    assert plan.arena_bytes == plan.bound_bytes == 32


@pytest.mark.parametrize("seed", range(30))
def test_no_two_blocks_that_live_at_once_overlap(seed):
    chance = random.Random(seed)
    blocks = []
    for _ in range(chance.randint(1, 40)):
        first = chance.randrange(30)
        blocks.append(Block(chance.randint(1, 500), first, first + chance.randrange(6)))
    plan = plan_memory(blocks)
    assert_sound(blocks, plan)
    assert plan.bound_bytes <= plan.arena_bytes <= 1.35 * plan.bound_bytes


def test_the_same_blocks_are_always_planned_alike():
    chance = random.Random(5)
    blocks = [Block(chance.randint(1, 99), n // 3, n // 3 + chance.randrange(9)) for n in range(60)]
    assert plan_memory(blocks) == plan_memory(list(blocks))


def test_no_blocks_need_nothing():
    assert plan_memory([]).arena_bytes == 0


@pytest.mark.parametrize("block", [Block(0, 0, 1), Block(4, 2, 1)])
def test_a_block_without_size_or_life_is_refused(block):
    with pytest.raises(ValueError, match="needs a size, and can't end before"):
        plan_memory([block])


def test_a_block_may_begin_ahead_of_one_that_it_overwrites():
    """96 bytes overwrite 80 from 16 bytes before them on: 96 in all, and 176 if they must not."""
    blocks = [Block(80, 0, 1), Block(96, 1, 2)]
    plan = plan_memory(blocks, [Trail(later=1, earlier=0, ahead=16)])
    assert (plan.arena_bytes, plan.bound_bytes) == (96, 96)
    assert plan.offsets[0] - plan.offsets[1] == 16
    assert plan_memory(blocks).arena_bytes == 176


def test_a_block_that_may_only_begin_at_the_same_place_does_or_is_apart():
    blocks = [Block(80, 0, 1), Block(20, 1, 2)]
    plan = plan_memory(blocks, [Trail(later=1, earlier=0, ahead=None)])
    assert plan.offsets == (0, 0)
    assert (plan.arena_bytes, plan.bound_bytes) == (80, 80)


@pytest.mark.parametrize("seed", range(20))
def test_chains_of_overwriting_blocks_keep_their_distance(seed):
    chance = random.Random(seed)
    blocks = [Block(chance.randint(1, 400), n, n + 1) for n in range(12)]
    ahead = [chance.choice([None, chance.randrange(200)]) for _ in blocks[1:]]
    trails = [Trail(n + 1, n, bytes_) for n, bytes_ in enumerate(ahead)]
    trails = [one for one in trails if one.ahead is not None
              or blocks[one.later].size <= blocks[one.earlier].size]  # fmt: skip
    plan = plan_memory(blocks, trails)
    assert plan.bound_bytes <= plan.arena_bytes <= plan_memory(blocks).arena_bytes
    known = {one.later: one for one in trails}
    for later in range(1, len(blocks)):
        distance = plan.offsets[later - 1] - plan.offsets[later]
        apart = distance >= blocks[later].size or -distance >= blocks[later - 1].size
        trail = known.get(later)
        shared = trail is not None and (
            distance == 0 if trail.ahead is None else distance >= trail.ahead
        )
        assert apart or shared
