"""Networks drawn at random: whatever edgekd makes of one, it computes what the module does."""

import pytest
from run import MAIN, run

FEW = range(60)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "names"),
    [
        (FEW, ("export", "ptq", "prune", "low rank")),
        (FEW[::4], ("export", "onnx")),
        (FEW[::12], ("export", "qat")),
        (FEW[::15], ("export", "tflite")),
    ],
)
def test_sixty_networks_are_right_or_refused(seeds: range, names: tuple[str, ...]) -> None:
    table = run(seeds, names)
    assert not table.wrong, str(table)
    assert table.refused["export"].total() <= 1 + len(seeds) // 10, str(table)


@pytest.mark.long
@pytest.mark.timeout(3 * 3600)
def test_two_thousand_networks_are_right_or_refused() -> None:
    table = run(range(2000), (*MAIN, "ptq8"))
    assert not table.wrong, str(table)


@pytest.mark.long
@pytest.mark.timeout(3 * 3600)
def test_some_hundred_are_right_after_training_and_in_tflite_and_c() -> None:
    table = run(range(2000, 2200), ("export", "qat", "tflite", "c"))
    assert not table.wrong, str(table)
