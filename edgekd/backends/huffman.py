"""Entropy-coded ONNX for flash: a smaller file that unpacks to `model.onnx` bit for bit."""

from pathlib import Path
from typing import Any

from edgekd.backends import Board, Follower, Placements
from edgekd.quant.packed_onnx import Packed, pack
from edgekd.registry import BACKENDS
from edgekd.store import write_beside
from edgekd.values.artifact import Artifact
from edgekd.values.backend import BackendInfo, FileKind, Needs, Package
from edgekd.values.target import Target


@BACKENDS.register(paper="https://arxiv.org/abs/1510.00149")
class Huffman(Follower):
    """An ONNX file with Huffman-coded integer weights; `edgekd unpack` restores it."""

    info = BackendInfo(
        title="Huffman-coded ONNX",
        files=(
            FileKind(
                format="onnx-huffman", runtime="huffman", stored=True,
                not_run="stored in flash only: it unpacks bit for bit to the ONNX file, whose "
                "results apply to it",
            ),
        ),
        precisions=(
            "fp32", "fp16", "int8", "bf16", "int4", "ternary", "binary", "clustered", "mixed",
        ),
        follows="onnx",
        needs=Needs(
            packages=(
                Package(name="onnx", module="onnx", purpose="the ONNX backend", extra="onnx"),
            )
        ),
    )  # fmt: skip

    def check_artifact(
        self, artifact: Artifact, target: Target, options: dict[str, Any]
    ) -> tuple[Placements, dict[str, float | str]]:
        """Its operators run where they did; its facts are measured on the file."""
        return artifact.placements, _facts(pack(artifact.path.read_bytes(), str(artifact.path)))

    def follow(
        self,
        artifact: Artifact,
        target: Target,
        options: dict[str, Any],
        folder: Path,
        board: Board | None = None,
    ) -> list[Artifact]:
        """`model.onnx.huffman`, decoded once and compared with its source."""
        packed = pack(artifact.path.read_bytes(), str(artifact.path))
        path = folder / f"{artifact.path.name}.huffman"
        write_beside(path, packed.data)
        note = (
            f"for flash: edgekd unpack restores {artifact.path.name} bit for bit (verified), so "
            "that file's results apply to this one"
        )
        return [
            artifact.derived(
                path,
                format="onnx-huffman",
                runtime="huffman",
                notes=(note,),
                facts=_facts(packed),
            )
        ]


def _facts(packed: Packed) -> dict[str, float | str]:
    """Measured sizes: the ratio to the ONNX file, and to one with float weights."""
    floating = packed.original + 3 * packed.weights
    return {
        "kind": "measured",
        "onnx_bytes": packed.original,
        "ratio_to_onnx": round(packed.original / len(packed.data), 3),
        "ratio_to_fp32": round(floating / len(packed.data), 3),
        "bits_per_weight": round(8 * packed.coded / max(1, packed.weights), 3),
    }
