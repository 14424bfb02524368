"""A sample of `benchmarks/conformance`: foreign networks through every step."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from edgekd.registry import SOURCES
from edgekd.values.recipe import Network

FOLDER = Path(__file__).parents[1] / "benchmarks" / "conformance"
SAMPLE = (
    ("transformers:gpt2", "trained"),
    ("plain:DLRM", "ptq"),
    ("timm:mobilenetv3_small_050", "trained"),
)
LIBRARIES = {"transformers": "transformers", "timm": "timm"}


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import networks
    import steps

    yield networks, steps
    for name in ("networks", "steps", "plain"):
        sys.modules.pop(name, None)


def test_the_suite_has_sixty_networks_under_names_of_their_own(suite):
    networks, _ = suite
    names = [row.name for row in networks.ROWS]
    assert len(names) == len(set(names)) >= 60


def test_every_network_is_a_table_of_a_known_source(suite):
    networks, _ = suite
    for row in networks.ROWS:
        network = Network.model_validate(row.model)
        assert network.kind in SOURCES.names()
        if network.kind == "transformers":
            assert Path(network.name).is_file()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "step"), SAMPLE)
def test_a_foreign_network_goes_through_its_steps(suite, name, step):
    networks, steps = suite
    library = LIBRARIES.get(name.partition(":")[0])
    if library and find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    (row,) = [row for row in networks.ROWS if row.name == name]
    result = steps.run_step(row, step)
    assert result["status"] == "worked", result
