"""What a search writes and prints: fronts, chosen points, recipes, and how far it has come."""

import json
from pathlib import Path

import pytest
from searches import file_of, made_search, trial_of

from edgekd.errors import InputError
from edgekd.searching.best import Best
from edgekd.searching.judging import points_of
from edgekd.searching.page import page_of
from edgekd.searching.result import Proven, load_search, result_text, write_result
from edgekd.searching.run import make_result
from edgekd.searching.text import exit_code, result_lines, status_lines

GOOD = {"stages.1.amount": 0.5, "stages.2.method": "qat"}


def trials():
    return [
        trial_of(0, file_of(size_kb=45, accuracy=0.97), parameters=GOOD),
        trial_of(1, file_of(size_kb=70, accuracy=0.99), parameters=GOOD),
        trial_of(2, state="failed", message="no <memory>", hint="buy some", parameters=GOOD),
        trial_of(3, state="refused", message="too large", parameters=GOOD),
    ]


def result_of(tmp_path: Path, made, **options):
    search = made_search(tmp_path, **options)
    points = points_of(made, "x86", search.limits, ())
    fitting = [point for point in points if point.verdict == "pass"]
    best = Best(None, None)
    if fitting:
        proven = Proven(folder="best/x86", verdict="pass", accuracy=0.97, same_bytes=True,
                        budgets=fitting[0].judgements)  # fmt: skip
        best = Best(fitting[0], proven)
    return make_result(search, made, {"x86": best})


def test_the_result_has_the_front_and_the_chosen_point_with_its_recipe(tmp_path):
    (target,) = result_of(tmp_path, trials()).targets
    assert [point.trial for point in target.front] == [1, 0]
    assert target.best.trial == 0
    assert [point.recipe for point in target.front] == ["front/1.toml", "front/2.toml"]
    assert target.verdict == "pass"
    assert target.nearest is None


def test_the_result_is_read_as_it_was_written(tmp_path):
    result = result_of(tmp_path, trials())
    write_result(result, tmp_path)
    loaded = load_search(tmp_path)
    assert result_text(loaded) == result_text(result)
    assert loaded.recipe() == tmp_path.resolve() / "front/2.toml"
    assert json.loads((tmp_path / "search.json").read_text())["schema"] == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 7}'])
def test_another_file_is_no_search(tmp_path, text):
    (tmp_path / "search.json").write_text(text)
    with pytest.raises(InputError) as caught:
        load_search(tmp_path)
    assert "search" in caught.value.message


def test_a_folder_without_a_search_is_refused_with_a_hint(tmp_path):
    with pytest.raises(InputError, match="no such file") as caught:
        load_search(tmp_path)
    assert caught.value.hint == "give a folder that 'edgekd search' wrote"


def test_the_table_marks_the_chosen_point_and_lists_failures(tmp_path):
    lines = result_lines(result_of(tmp_path, trials()))
    assert lines[0] == "4 trials: 2 finished, 1 refused, 1 failed"
    (chosen,) = [line for line in lines if line.startswith("*")]
    assert "front/2.toml" in chosen
    assert "97.00 %" in chosen
    assert any("run by itself (the same file): accuracy 97.00 %, pass" in one for one in lines)
    assert "trial 2 failed: no <memory> (buy some)" in lines


def test_trials_that_were_stopped_early_are_counted_and_the_page_says_why(tmp_path):
    reason = "stopped at epoch 2 of 8 (prune): validation accuracy 50.00 %"
    stopped = trial_of(1, state="stopped", message=reason, parameters=GOOD)
    result = result_of(tmp_path, [trials()[0], stopped])
    lines = result_lines(result)
    assert lines[0] == "2 trials: 1 finished, 1 stopped"
    assert "stopped early: trials 1" in lines
    assert reason in page_of(result)
    assert [point.trial for point in result.targets[0].front] == [0]


def test_without_a_feasible_point_the_nearest_and_the_reachable_values_are_shown(tmp_path):
    result = result_of(tmp_path, [trial_of(0, file_of(size_kb=70), parameters=GOOD)])
    lines = result_lines(result)
    assert (
        "x86: no point meets every budget; the nearest is front/1.toml, model.onnx (int8): "
        "size_kb = 70, limit 50"
    ) in lines
    assert "x86: reached at best, each by itself: size_kb 70, accuracy_drop 1" in lines
    assert exit_code(result) == 1


def test_a_search_without_any_accuracy_says_so(tmp_path):
    result = result_of(tmp_path, [trial_of(0, state="failed", message="no", parameters=GOOD)])
    assert "x86: no trial gave a file whose accuracy is known" in result_lines(result)


def test_the_status_shows_what_runs_and_the_time_left(tmp_path):
    result = result_of(tmp_path, trials(), trials=10)
    (tmp_path / "trials/0004").mkdir(parents=True)
    lines = status_lines(result.model_copy(update={"state": "running"}), tmp_path, busy=True)
    assert lines[0] == "running: 4 of 10 trials in 0.1 minutes"
    assert lines[1] == "running: trials/0004"
    assert lines[2] == "about 0.1 minutes left"
    stopped = status_lines(result.model_copy(update={"state": "running"}), tmp_path, busy=False)
    assert stopped[0].startswith("stopped")
    assert "run the same command again to continue" in stopped


def test_the_page_shows_the_front_escapes_what_it_is_given_and_needs_no_network(tmp_path):
    result = result_of(tmp_path, trials())
    page = page_of(result)
    assert page == page_of(result)
    assert "no &lt;memory&gt;" in page
    assert "edgekd compress front/2.toml --target x86" in page
    assert page.count("<svg") == 1
    assert "http" not in page
