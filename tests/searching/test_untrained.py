"""What a trial's files cost before training: which are run, and what their costs are taken for."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from searches import file_of, trial_of, write_case

from edgekd.backends import Follower
from edgekd.installed import has_module
from edgekd.run.plan.planned import ExpectedFile, PlannedTarget
from edgekd.searching.outcome import UntrainedFile
from edgekd.searching.refusal import refusal_of
from edgekd.searching.request import SearchOptions, make_search
from edgekd.searching.stopping import Watch
from edgekd.searching.study import Proposal
from edgekd.searching.trial import run_trial
from edgekd.searching.untrained import (
    UntrainedCosts,
    _run_as_they_are,
    errors_of,
    factors_of,
    is_timed,
    tells,
    told_by_compilers,
)
from edgekd.store import Store
from edgekd.values.artifact import Artifact
from edgekd.values.backend import BackendInfo, FileKind
from edgekd.values.measurement import Measurement
from edgekd.values.progress import silent
from edgekd.values.target import load_target

P90 = "latency_ms_p90"


def cost(value, kind="measured", ci=None, metric=P90):
    return Measurement(metric=metric, value=value, kind=kind, device="host", ci=ci)


def untrained(*costs, sha256="a", **keys):
    keys = {"target": "x86", "format": "onnx", "precision": "int8", **keys}
    return UntrainedFile(sha256=sha256, measurements=costs, **keys)


def artifact(tmp_path, sha256="a", format="onnx"):
    path = tmp_path / f"{sha256}.onnx"
    path.write_bytes(b"1")
    return Artifact(
        path=path, format=format, runtime="onnxruntime", precision="int8", target="x86",
        sha256=sha256, bytes=1, inputs=(), outputs=(),
    )  # fmt: skip


def planned(*files, backends=()):
    return PlannedTarget(load_target("x86"), (), dict(backends), {}, expected=files)


def plan(*files, stages=()):
    recipe = SimpleNamespace(stages=stages)
    return SimpleNamespace(targets=(planned(*files),), request=SimpleNamespace(recipe=recipe))


@pytest.fixture
def file(tmp_path):
    return ExpectedFile(format="onnx", bytes=1, artifact=artifact(tmp_path))


LIMITS = {"x86": {"latency_ms": 1.0}}


def test_only_budgets_on_what_a_run_tells_ask_for_a_run():
    assert is_timed({"latency_us": 3.0})
    assert is_timed({"size_kb": 3.0, "memory_kb": 1.0})
    assert not is_timed({"size_kb": 3.0, "accuracy_drop": 1.0})


def test_a_file_that_is_too_slow_untrained_is_refused_with_its_latency(file):
    costs = UntrainedCosts((untrained(cost(2.0, ci=(1.5, 2.5))),))
    refusal = refusal_of(plan(file), LIMITS, costs)
    # The low end of the interval, 1.5 ms, divided by 1.25, since no trained file is known.
    assert refusal.message == (
        "x86: the onnx file takes at least 1.2 ms untrained, latency_ms <= 1"
    )
    assert refusal.excesses == {"x86": {"latency_ms": pytest.approx(0.2)}}


def test_a_file_that_may_still_meet_its_budget_is_not(file):
    costs = UntrainedCosts((untrained(cost(1.2)),))
    assert refusal_of(plan(file), LIMITS, costs) is None
    known = UntrainedCosts((untrained(cost(1.2)),), {("x86", P90): 1.05})
    assert refusal_of(plan(file), LIMITS, known) is not None


def test_where_a_stage_chooses_by_layer_more_is_needed_until_its_error_is_known(file):
    by_layer = plan(file, stages=({"kind": "prune", "allocation": "global"},))
    files = (untrained(cost(1.4)),)
    assert refusal_of(by_layer, LIMITS, UntrainedCosts(files)) is None
    assert refusal_of(by_layer, LIMITS, UntrainedCosts(files, {("x86", P90): 1.1})) is not None


def test_a_number_that_can_not_satisfy_a_budget_can_not_break_it_either(file):
    files = (untrained(cost(9.0, kind="simulated")),)
    assert refusal_of(plan(file), LIMITS, UntrainedCosts(files)) is None
    assert refusal_of(plan(file), LIMITS, UntrainedCosts(files, accept=("simulated",))) is not None


def test_a_file_that_was_not_run_saves_the_trial(file):
    other = ExpectedFile(format="tvm-so", bytes=1, final=False)
    assert refusal_of(plan(file, other), LIMITS, UntrainedCosts((untrained(cost(9.0)),))) is None


def trial(number, before, after):
    file = file_of(path=f"{number}.onnx")
    file = file.model_copy(update={"measurements": (cost(after),)})
    return trial_of(number, file, untrained=(untrained(cost(before)),))


def test_the_factor_is_the_largest_by_which_a_file_was_slower_untrained():
    trials = [trial(0, 1.0, 1.0), trial(1, 1.2, 1.0), trial(2, 0.5, 1.0)]
    assert factors_of(trials) == {}  # three are too few
    assert factors_of([*trials, trial(3, 2.0, 2.0)]) == {("x86", P90): pytest.approx(1.2)}
    # Files that were always faster untrained leave what noise does to a measurement.
    faster = [trial(number, 0.5, 1.0) for number in range(4)]
    assert factors_of(faster) == {("x86", P90): 1.05}


def test_the_errors_are_told_for_the_metrics_that_have_a_limit():
    trials = [trial(0, 1.0, 1.0), trial(1, 1.06, 1.0), trial(2, 0.8, 1.0)]
    (error,) = errors_of(trials, "x86", LIMITS["x86"])
    assert (error.metric, error.files) == (P90, 3)
    assert error.median == pytest.approx(0.06)
    assert error.largest == pytest.approx(0.2)
    assert error.text == (
        "latency_ms_p90 of 3 files before training: median error 6.00 %, largest 20.00 %, "
        "66.67 % within 10 %"
    )
    assert errors_of(trials, "x86", {"energy_mj": 1.0}) == ()


class Follows(Follower):
    def __init__(self, not_run):
        kind = FileKind(format="x", suffixes=(".x",), runtime="x", not_run=not_run)
        self.info = BackendInfo(title="", files=(kind,), precisions=("int8",), follows="onnx")

    def check_artifact(self, artifact, target, options):
        return (), {}

    def follow(self, artifact, target, options, folder, board=None):
        return []


def test_files_from_which_a_faster_one_is_compiled_afterwards_are_not_judged(file):
    assert _run_as_they_are(planned(file)) == [file.artifact]
    assert _run_as_they_are(planned(file, backends={"x": Follows("")}.items())) == []
    stored = {"x": Follows("it is only stored")}
    assert _run_as_they_are(planned(file, backends=stored.items())) == [file.artifact]


class Counts(Follower):
    """Stands for generated C: compiling it counts its instructions."""

    info = BackendInfo(
        title="", files=(FileKind(format="x", suffixes=(".x",), runtime="x"),),
        precisions=("int8",), follows="onnx", tells_costs=True,
    )  # fmt: skip

    def check_artifact(self, artifact, target, options):
        return (), {}

    def follow(self, artifact, target, options, folder, board=None):
        (folder / "a.x").write_bytes(b"other")
        counted = cost(700.0, "simulated", metric="instructions")
        small = cost(3.0, metric="size_bytes")
        return [artifact.derived(folder / "a.x", "", format="x", runtime="x",
                                 measurements=(counted, small))]  # fmt: skip


def test_what_a_compiler_tells_of_an_untrained_file_is_known_without_a_device(tmp_path, file):
    own = replace(planned(file), backends={"x": Counts()})
    store = Store(tmp_path / "stages")
    for _ in range(2):  # the second time it is read
        (told,) = told_by_compilers(SimpleNamespace(store=store), own)
        assert (told.format, told.made_of) == ("x", file.artifact.sha256)
        assert {each.metric: each.value for each in told.measurements}["instructions"] == 700.0
    limits = {"x86": {"instructions": 500.0}}
    assert refusal_of(plan(file), limits, UntrainedCosts((told,))) is None  # only simulated
    refusal = refusal_of(plan(file), limits, UntrainedCosts((told,), accept=("simulated",)))
    assert refusal.message == (
        "x86: the onnx file takes at least 560 instructions untrained, instructions <= 500"
    )
    # The size of the other file is not that of the plan's own, which is deployed too.
    small = {"x86": {"size_kb": 0.001}}
    assert refusal_of(plan(file), small, UntrainedCosts((told,))) is None


def test_a_run_decides_where_it_told_the_budgets_that_a_table_refused():
    files = [untrained(cost(1.0)), untrained(cost(None, "unavailable", metric="energy_mj"))]
    assert tells(files, {"x86": {"latency_ms": 0.1}})
    assert not tells(files, {"x86": {"latency_ms": 0.1, "energy_mj": 0.1}})
    assert not tells(files, {"arm": {"latency_ms": 0.1}})


@pytest.mark.slow
def test_a_trial_that_is_too_slow_trains_nothing_and_one_that_fits_tells_its_errors(tmp_path):
    write_case(tmp_path)

    def run(number, limit):
        asked = {
            "target": tmp_path / "small.toml",
            "out": tmp_path / "s",
            "budgets": {"latency_ms": limit},
            "cache": tmp_path / "cache",
        }
        search = make_search(tmp_path / "r.toml", asked, SearchOptions(trials=2))
        assert "budgets: each trial's untrained file is run before its training" in search.lines()
        watch = Watch("none", lambda: [], lambda course: None)
        proposal = Proposal(number, number, {"stages.2.amount": 0.5}, str(number))
        return run_trial(search, proposal, [], watch, silent)

    refused = run(0, 1e-6)
    assert refused.state == "refused"
    assert "ms untrained, latency_ms <= 1e-06" in refused.message
    assert not list((tmp_path / "s/stages").glob("distill*"))
    finished = run(1, 100.0)
    assert finished.state == "finished"
    (file,) = finished.untrained
    assert file.sha256 != finished.files[0].sha256
    names = {error.metric for error in errors_of([finished], "small", {"latency_ms": 1.0})}
    assert names == {P90}
    assert not (tmp_path / "s/trials/0001/untrained").exists()


@pytest.mark.slow
@pytest.mark.skipif(not has_module("ethosu.vela"), reason="needs Vela")
def test_the_time_that_vela_tells_of_an_untrained_file_refuses_a_trial(tmp_path):
    write_case(tmp_path)

    def run(number, limit, accept):
        asked = {
            "target": "ethos-u55",
            "out": tmp_path / "s",
            "budgets": {"latency_us": limit},
            "accept": accept,
            "cache": tmp_path / "cache",
        }
        search = make_search(tmp_path / "r.toml", asked, SearchOptions(trials=2))
        watch = Watch("none", lambda: [], lambda course: None)
        proposal = Proposal(number, number, {"stages.2.amount": 0.5}, str(number))
        return run_trial(search, proposal, [], watch, silent)

    refused = run(0, 0.1, ["simulated"])
    assert refused.state == "refused"
    assert "us untrained, latency_us <= 0.1" in refused.message
    (file,) = refused.untrained
    (told,) = [each for each in file.measurements if each.metric == P90]
    assert (file.format, told.kind) == ("vela", "simulated")
    finished = run(1, 1e6, ["simulated"])
    assert finished.state == "finished"
    (error,) = errors_of([finished], "ethos-u55", {"latency_ms": 1.0})
    assert error.largest < 0.2  # training changes how well weights are compressed, nothing else
