"""Fashion-MNIST from Debian's package, `$EDGEKD_DATA` or what `edgekd data fetch` brought."""

from pathlib import Path

from edgekd.data.download import Download, data_folders
from edgekd.data.idx import read_idx
from edgekd.data.samples import Samples
from edgekd.data.sets import SETS
from edgekd.data.source import Source
from edgekd.errors import InputError

NAME = "fashion-mnist"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
PARTS = {"train": "train", "test": "t10k"}
LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# The hashes are of the decompressed content of the files in Debian's dataset-fashion-mnist, whose
# gzip bytes differ from the official ones (github.com/zalandoresearch/fashion-mnist).
DOWNLOAD = Download(
    urls=(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    ),
    sha256={
        "train-images-idx3-ubyte.gz": (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
        ),
        "train-labels-idx1-ubyte.gz": (
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
        ),
        "t10k-images-idx3-ubyte.gz": (
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
        ),
    },
)


@SETS.register(paper="Xiao et al. 2017, arXiv:1708.07747")
def fashion_mnist() -> Source:
    """70,000 images of clothes, 60,000 of them to train on: (1, 28, 28), 10 classes, in [0, 1]."""
    folder = find_folder()
    train, test = (_part(folder, prefix) for prefix in PARTS.values())
    return Source(train, test, labels=LABELS)


def find_folder() -> Path:
    """The first folder with a file of the set; InputError with both ways to get it if none has."""
    folders = [*data_folders(NAME), DEBIAN]
    for folder in folders:
        if any((folder / file).exists() for file in DOWNLOAD.sha256):
            return folder
    raise InputError(
        "the fashion-mnist files are in none of the folders searched",
        where="data.source",
        allowed=", ".join(str(folder) for folder in folders),
        hint="apt install dataset-fashion-mnist, or: edgekd data fetch fashion-mnist",
    )


def _part(folder: Path, prefix: str) -> Samples:
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", rank=3)
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", rank=1)
    if len(images) != len(labels):
        raise InputError(
            f"{len(images)} images, but {len(labels)} labels", where=f"{folder}/{prefix}-*"
        )
    return Samples(images.float().div(255).unsqueeze(1), labels.long())
