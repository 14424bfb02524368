"""What a run compresses: one module per kind of subject, each an `edgekd.run.plan.Subject`."""

from edgekd.run.plan.planned import Subject
from edgekd.run.subjects.network import NetworkSubject
from edgekd.run.subjects.onnx_file import OnnxFileSubject
from edgekd.run.subjects.tflite_file import TfliteFileSubject
from edgekd.values.recipe import Recipe


def subject_of(recipe: Recipe) -> Subject:
    """An ONNX or TFLite file if the recipe names one and no student, otherwise a network."""
    if recipe.student is None and recipe.model.onnx is not None:
        return OnnxFileSubject()
    if recipe.student is None and recipe.model.tflite is not None:
        return TfliteFileSubject()
    return NetworkSubject()
