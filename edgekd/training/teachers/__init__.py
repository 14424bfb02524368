"""Teachers: networks whose layers can be tapped, and black boxes that only return logits."""

from edgekd.training.teachers.load import load_teacher
from edgekd.training.teachers.teacher import Teacher

__all__ = ["Teacher", "load_teacher"]
