"""Which candidates a backend compiles: the last one, or several precisions to choose from."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from edgekd.values.artifact import Artifact
from edgekd.values.backend import BackendInfo
from edgekd.values.backend_lookup import backend_info
from edgekd.values.candidate import Candidate, Form

PRECISIONS: dict[Form, str] = {"float": "fp32"}
"""The forms that files call by another name."""


def candidates_for(
    last: Candidate, floating: Candidate, forms: Collection[str]
) -> dict[str, Candidate]:
    """What a backend that takes these forms compiles of the last candidate and the last one with
    float weights: one of them, under the name "", or each precision that the last one asks for
    (`Candidate.also`), by its name."""
    if not last.also:
        return {"": last if last.form in forms else floating}
    several = [last, *(replace(floating, form=form) for form in last.also)]
    return {name_of(each): each for each in several if each.form in forms}


def name_of(candidate: Candidate) -> str:
    """What files call the precision of a candidate: fp32, fp16, int8."""
    return PRECISIONS.get(candidate.form, candidate.form)


def taken_by(follower: BackendInfo, artifacts: Sequence[Artifact]) -> list[Artifact]:
    """Of the files that a backend starts from, those of a precision that it takes, or all of them,
    so that it says what is wrong with them."""
    followed = backend_info(follower.follows)
    sources = [each for each in artifacts if followed.kind_of(each.format) is not None]
    return [each for each in sources if each.precision in follower.precisions] or sources


def named(artifacts: Sequence[Artifact], precision: str) -> list[Artifact]:
    """The files, called after their precision (model_fp16.onnx) if there is one."""
    return [_renamed(artifact, precision) for artifact in artifacts] if precision else [*artifacts]


def _renamed(artifact: Artifact, precision: str) -> Artifact:
    path = artifact.path.with_name(f"{artifact.path.stem}_{precision}{artifact.path.suffix}")
    artifact.path.replace(path)
    return artifact.model_copy(update={"path": path})


def failed(backend: str, precision: str) -> str:
    """What the report calls a backend, or one of its precisions, that made no file."""
    return f"{backend} in {precision}" if precision else backend
