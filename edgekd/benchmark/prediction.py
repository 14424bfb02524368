"""What a file will take on a device, from the operators of other files that were measured there."""

from collections.abc import Sequence
from pathlib import Path

from edgekd.benchmark.files import Wanted, loaded_files
from edgekd.devices import Device
from edgekd.errors import Collector, InputError, raise_all
from edgekd.measure.cost_model import CostModel, fit_cost_model
from edgekd.measure.cost_table import graph_with_shapes, known_files, table_folder
from edgekd.measure.operator_costs import Operator, operators_of
from edgekd.report.numbers import percent
from edgekd.store import cache_folder
from edgekd.values.measurement import Measurement, cost_words
from edgekd.values.tables import Value
from edgekd.values.target import Target, load_target

PREDICTED = (".onnx", ".tflite")


class Prediction(Value):
    """A file's estimated latency, or its instructions on an emulated Cortex-M, and how it was
    predicted: from how many files, by which share those were missed in the middle when they were
    left out, and which share nine of ten of them stayed within."""

    path: Path
    runtime: str
    device: str
    cost: Measurement
    files: int
    median_error: float
    usual_error: float

    @property
    def text(self) -> str:
        """The prediction on one line."""
        return (
            f"{self.path.name}: {cost_words(self.cost)} on {self.device} (estimated from "
            f"{self.files} files measured in {self.runtime}; of files left out, the median error "
            f"was {percent(self.median_error, 1)}, and nine of ten were within "
            f"{percent(self.usual_error, 1)})"
        )


def predict_files(
    paths: Sequence[Path], target: Target | None, device: Device, wanted: Wanted
) -> list[Prediction]:
    """The cost of each file by the table of its runtime on this device. Raises `InputError` for
    a file of a format whose operators can't be read, or if too few files were measured."""
    collect = Collector()
    for path in paths:
        if path.suffix.lower() not in PREDICTED:
            message = f"the operators of a '{path.suffix}' file are not known before it runs"
            collect.faults.append(
                InputError(message, where=str(path), allowed=", ".join(PREDICTED))
            )
    raise_all(collect.faults)
    predictions = []
    fitted: dict[tuple[str, ...], CostModel] = {}  # files of one table mostly share a model
    for loaded in loaded_files(paths, target or load_target("x86"), device, wanted):
        artifact = loaded.artifact
        folder = table_folder(cache_folder(), device, artifact, loaded.options)
        others = [file for file in known_files(folder) if file.sha256 != artifact.sha256]
        key = (str(folder), *(file.sha256 for file in others))
        model = fitted.get(key) or fitted.setdefault(key, fit_cost_model(others))
        graph = graph_with_shapes(artifact.path)
        found = Prediction(
            path=artifact.path, runtime=artifact.runtime, device=device.name,
            cost=_cost(model, operators_of(graph), device, len(others)), files=len(others),
            median_error=model.median_error, usual_error=model.usual_error,
        )  # fmt: skip
        predictions.append(found)
    return predictions


def _cost(
    model: CostModel, operators: Sequence[Operator], device: Device, files: int
) -> Measurement:
    value, timed = model.predict(operators), model.unit == "us"
    return Measurement(
        metric="latency_ms_p50" if timed else "instructions",
        value=value / 1e3 if timed else value,
        kind="estimated",
        device=device.name,
        protocol=f"{model.name} over {files} files",
    )
