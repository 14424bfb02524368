"""Whoever teaches: a network whose layers can be tapped, or a black box that only gives logits."""

from edgekd.training.teachers.load import load_teacher
from edgekd.training.teachers.teacher import Teacher

__all__ = ["Teacher", "load_teacher"]
