"""The user's samples: named sets, files and factories, checked before anything is trained."""

from edgekd.data.load import load_data
from edgekd.data.samples import Augmentation, Data, Samples

__all__ = ["Augmentation", "Data", "Samples", "load_data"]
