import pytest
from backend_marker import skip_without_backends

from edgekd.backends.onnx import Onnx
from edgekd.errors import InputError, MissingPackage


@pytest.mark.backend("onnx")
def test_a_test_of_an_installed_backend_runs(request: pytest.FixtureRequest):
    skip_without_backends(request.node)
    assert Onnx().missing() == []


@pytest.mark.backend("onnx")
def test_a_test_of_a_missing_backend_is_skipped_with_the_command_that_installs_it(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Onnx, "missing", lambda self: [MissingPackage("onnx", "onnx")])
    with pytest.raises(pytest.skip.Exception) as caught:
        skip_without_backends(request.node)
    assert str(caught.value) == (
        "backend 'onnx': onnx is not installed: pip install 'edgekd[onnx]'"
    )


def test_an_unknown_backend_is_an_error(request: pytest.FixtureRequest):
    request.node.add_marker(pytest.mark.backend("onx"))
    with pytest.raises(InputError, match="unknown backend 'onx'"):
        skip_without_backends(request.node)
