"""Whoever teaches: a network whose layers can be tapped, or a black box that only gives logits."""

from edgekd.teachers.load import load_teacher
from edgekd.teachers.teacher import Teacher

__all__ = ["Teacher", "load_teacher"]
