"""What a run compresses: one module per kind of subject, each an `edgekd.run.plan.Subject`."""

from edgekd.run.plan.planned import Subject
from edgekd.run.subjects.network import NetworkSubject
from edgekd.run.subjects.onnx_file import OnnxFileSubject
from edgekd.values.recipe import Recipe


def subject_of(recipe: Recipe) -> Subject:
    """An ONNX file if the recipe names one and no student, otherwise a network."""
    file = recipe.model.kind == "onnx" and recipe.student is None
    return OnnxFileSubject() if file else NetworkSubject()
