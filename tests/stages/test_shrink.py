"""Channels, ranks and types of weights chosen together, within a size."""

from pathlib import Path

import pytest

from edgekd.data.samples import Data
from edgekd.errors import InputError
from edgekd.network.evaluation import evaluate
from edgekd.quant.weight_only import stored_bytes
from edgekd.quant.weight_options import OutputError
from edgekd.stages import Context
from edgekd.stages.shrink import Shrink
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target


@pytest.fixture
def candidate(trained, data: Data) -> Candidate:
    return Candidate(trained, data.example)


@pytest.fixture
def context(data: Data, tmp_path: Path) -> Context:
    target = load_target("x86").model_copy(update={"channel_multiple": 4})
    return Context(target, data, [], tmp_path, calibration=data.train.x[:64])


def shrunk(candidate, context, kb, **keys):
    return Shrink(weights_kb=kb, epochs=0, samples=64, **keys).run(candidate, context)


def error_of(candidate, made, context):
    return OutputError(candidate.module, context.calibration)(made.module)


def whole_kb(candidate):
    return sum(value.numel() for value in candidate.module.parameters()) / 1e3


def test_the_weights_take_no_more_than_a_size_that_bits_alone_can_not_reach(candidate, context):
    small = 0.3 * whole_kb(candidate)
    made = shrunk(candidate, context, small)
    assert stored_bytes(made.module) <= 1e3 * small
    assert made.form == "weights"
    line = made.lineage[-1]
    assert f"at most {small:g} kB" in line
    assert "channels: all stay; ranks: full" not in line
    assert "int4" in line.partition("types: ")[2]
    with pytest.raises(InputError):
        shrunk(candidate, context, small, channels=False, ranks=False)


@pytest.mark.slow
@pytest.mark.parametrize("alone", ["channels", "ranks", "bits"])
def test_all_together_err_no_more_than_each_alone_at_the_same_size(candidate, context, alone):
    others = {name: name == alone for name in ("channels", "ranks", "bits")}
    kb = 0.62 * whole_kb(candidate)
    one = shrunk(candidate, context, kb, **others)
    together = shrunk(candidate, context, kb)
    assert error_of(candidate, together, context) <= error_of(candidate, one, context) + 1e-9
    line = one.lineage[-1]
    assert ("channels: all stay" in line) == (alone != "channels")
    assert ("ranks: full" in line) == (alone != "ranks")
    assert ("int4" in line) == (alone == "bits")


def test_a_size_with_room_for_everything_changes_next_to_nothing(candidate, context):
    made = shrunk(candidate, context, 4 * whole_kb(candidate))
    assert "channels: all stay; ranks: full; types: int8" in made.lineage[-1]
    assert error_of(candidate, made, context) < 1e-3


@pytest.mark.slow
def test_a_size_that_is_out_of_reach_is_refused_with_the_least_that_is(candidate, context):
    with pytest.raises(InputError, match="the weights take at least") as caught:
        shrunk(candidate, context, 0.1)
    least = float(caught.value.allowed.partition(" ")[0])
    assert least > 0.1
    made = shrunk(candidate, context, least + 0.06)  # it is given to a tenth
    assert stored_bytes(made.module) <= 1e3 * (least + 0.06)


@pytest.mark.slow
def test_ignored_layers_keep_their_channels_rank_and_float_weights(candidate, context):
    made = shrunk(candidate, context, 0.6 * whole_kb(candidate), ignore=("stem",))
    assert "stem" not in made.lineage[-1]


@pytest.mark.slow
def test_training_in_the_chosen_types_wins_back_accuracy(candidate, context, data):
    small = 0.12 * whole_kb(candidate)
    before = shrunk(candidate, context, small)
    stage = Shrink(weights_kb=small, epochs=4, samples=64, label_weight=1.0, losses=())
    after = stage.run(candidate, context)
    assert stored_bytes(after.module) == stored_bytes(before.module)
    assert evaluate(after.module, data.test) > evaluate(before.module, data.test)


def test_keys_that_choose_nothing_or_the_wrong_way_round_are_refused():
    with pytest.raises(ValueError, match="nothing may be chosen"):
        Shrink(weights_kb=1, channels=False, ranks=False, bits=False)
    with pytest.raises(ValueError, match="widest = 'int4' is narrower than 'int8'"):
        Shrink(weights_kb=1, narrowest="int8", widest="int4")


def test_a_quantized_model_can_not_be_shrunk(candidate, context):
    done = candidate.after(candidate.module, "", "int8")
    (fault,) = Shrink(weights_kb=9).check(done, context, "stages.1 (shrink)")
    assert fault.message == "a quantized model can't be shrunk"


def test_a_target_that_stores_no_weights_in_few_bits_is_refused(candidate, context):
    target = context.target.model_copy(update={"backends": {"tflite": {}}})
    stage = Shrink(weights_kb=9, epochs=0)
    faults = stage.check(candidate, Context(target, context.data, [], context.work), "s")
    assert any("stores int4 weights" in fault.message for fault in faults)
    assert stage.check(candidate, context, "s") == []
