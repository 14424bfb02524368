"""Weights that share a few values, and their entropy coding: Deep Compression's last two steps."""

from typing import ClassVar, Literal

from pydantic import Field

from edgekd.errors import EdgekdError, InputError
from edgekd.network.taps import is_within
from edgekd.quant.export import export_graph
from edgekd.quant.faults import ignored_faults, number_faults, storing
from edgekd.quant.support import operators, unsupported
from edgekd.quant.weight_only import finish_narrow, shared, stored_weights, weighted_layers
from edgekd.registry import STAGES
from edgekd.stages import Context, TrainingStage
from edgekd.training.distillation import check_teaching, teach
from edgekd.training.teaching import Recovery
from edgekd.values.candidate import Candidate


@STAGES.register(paper="https://arxiv.org/abs/1510.00149")
class Cluster(TrainingStage):
    """Let the weights of each layer share 2^`bits` values, and train the values with the teachers.

    k-means finds the values; zeros of an earlier pruning stay zeros. Each value is then trained
    with the sum of its weights' gradients for `epochs` (may be 0); layers in `ignore` keep their
    weights. The onnx backend stores one byte per weight and the values; the huffman backend, which
    this stage adds, compresses that file for flash, and `edgekd unpack` restores it bit for bit.
    Inference does not become faster.
    """

    target_facts: ClassVar[tuple[str, ...]] = ("unsupported_ops",)
    followers: ClassVar[tuple[str, ...]] = ("huffman",)

    kind: Literal["cluster"] = "cluster"
    bits: int = Field(default=5, ge=1, le=8)
    ignore: tuple[str, ...] = ()
    teaching: Recovery = Recovery(epochs=5)

    def check(self, candidate: Candidate, context: Context, where: str) -> list[EdgekdError]:
        """The reasons why clustering can't work on a model."""
        if candidate.form != "float":
            return [InputError(f"the model is already quantized ({candidate.form})", where=where)]
        faults = number_faults(candidate, "clustered", where)
        layer_operators = operators(candidate, where)
        faults += unsupported(layer_operators, context.target.unsupported_ops, where)
        layers = list(weighted_layers(export_graph(candidate.module, candidate.example, where)))
        if not layers:
            faults.append(InputError("no layer has weights to share", where=where))
        faults += ignored_faults(self.ignore, layers, where)
        if not storing(context.target):
            faults.append(
                InputError(
                    f"no backend of {context.target.name} stores shared weights "
                    f"({', '.join(context.target.backends)}): it would only be a simulation",
                    where=where,
                    allowed="a target with the onnx backend",
                )
            )
        if self.teaching.epochs:
            faults += check_teaching(candidate.module, self.learning(context, where))
        return faults

    def cost(self, context: Context) -> str:
        """The number of values, and the training."""
        return f"{2**self.bits} values per layer, then {self.learning(context, '').length}"

    def rehearse(self, candidate: Candidate, context: Context) -> Candidate:
        """The shared values without training them."""
        return self.rehearsal().run(candidate, context)

    def rehearsal(self) -> "Cluster":
        """The stage without training."""
        return self.model_copy(update=self.untrained())

    def run(self, candidate: Candidate, context: Context) -> Candidate:
        """A graph whose layers read their weights from tables."""
        whole = export_graph(candidate.module, candidate.example)
        layers = [layer for layer in weighted_layers(whole) if not is_within(layer, self.ignore)]
        context.progress("clustering", 0, 1)
        graph = shared(whole, layers, self.bits)
        context.progress("clustering", 1, 1)
        if self.teaching.epochs:
            teach(graph, self.learning(context, "cluster"))
        finished = finish_narrow(graph)
        stored = [weights for _, weights in stored_weights(finished)]
        zeros = sum(int((weights.value == 0).sum()) for weights in stored)
        count = sum(weights.value.numel() for weights in stored)
        tables = sum(
            weights.centroids.numel() for weights in stored if weights.centroids is not None
        )
        line = (
            f"cluster: {count:,} weights of {len(stored)} layers share {tables:,} values, "
            f"{zeros / count:.1%} are zeros, trained for {self.teaching.epochs} epochs; "
            "activations stay in float"
        )
        return candidate.after(finished, line, "weights")
