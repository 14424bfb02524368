"""What the stages that change a trained network start from; no test changes it."""

from pathlib import Path

import pytest
from taught_digits import teach_digits
from torch import nn

from edgekd.data.load import load_data
from edgekd.data.samples import Data
from edgekd.values.recipe import DataTable


@pytest.fixture(scope="session")
def data() -> Data:
    return load_data(DataTable(source="digits", limit=640), Path())


@pytest.fixture(scope="session")
def trained(data: Data, tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    return teach_digits(data, tmp_path_factory.mktemp("fit"))
