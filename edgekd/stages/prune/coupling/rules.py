"""Which rule each ATen operation goes by; what is not listed freezes what it touches."""

from collections.abc import Mapping

from edgekd.stages.prune.coupling import arithmetic, movement
from edgekd.stages.prune.coupling.trace import Rule

MOVED = (
    "view _unsafe_view reshape _reshape_alias flatten unflatten squeeze unsqueeze permute "
    "transpose t expand repeat flip movedim pixel_shuffle pixel_unshuffle diagonal unfold "
)
PASSED = (
    "clone detach alias lift_fresh contiguous _to_copy native_dropout lift_fresh_copy _conj "
    "bernoulli dropout "
)
ALIKE = "zeros_like ones_like full_like empty_like new_zeros_like fill "
FILLED = "zeros ones full empty new_zeros new_ones new_full new_empty scalar_tensor "
POOLED = (
    "max_pool1d max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d "
    "avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool2d "
    "adaptive_max_pool2d adaptive_max_pool3d upsample_nearest1d upsample_nearest2d "
    "upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d "
    "_upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d "
    "upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa reflection_pad1d "
    "reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d "
)
UNTAGGED = "hardswish hardsigmoid hardtanh silu gelu mish elu leaky_relu relu relu6 softplus logit"
"""Element-wise, and not all tagged as such by every release of PyTorch."""

REDUCED = (
    "sum mean linalg_vector_norm amax amin max min prod logsumexp var std any all argmax argmin "
)
ORDERED = "_softmax _safe_softmax _log_softmax cumsum cumprod logcumsumexp sort topk kthvalue "
PRODUCTS = "mm bmm addmm baddbmm "
BATCH_NORMS = (
    "native_batch_norm _native_batch_norm_legit cudnn_batch_norm miopen_batch_norm "
    "_native_batch_norm_legit_no_training "
)


def _all(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: Mapping[str, Rule] = {
    **_all(MOVED, movement.moved),
    "transpose_": movement.transposed_in_place,
    "as_strided_": movement.strided_in_place,
    **_all(PASSED, movement.passed),
    **_all(ALIKE, movement.shaped_alike),
    **_all(FILLED, movement.filled),
    "slice": movement.sliced,
    **_all("split unsafe_split split_with_sizes unsafe_split_with_sizes", movement.split),
    **_all("select unbind", movement.selected),
    "roll": movement.rolled,
    "index": movement.indexed,
    "index_select": movement.index_selected,
    **_all("channel_shuffle native_channel_shuffle", movement.channels_shuffled),
    "constant_pad_nd": movement.padded,
    **_all("cat stack", movement.concatenated),
    "slice_scatter": movement.slice_written,
    "pointwise": arithmetic.pointwise,
    **_all(UNTAGGED, arithmetic.pointwise),
    "_prelu_kernel": arithmetic.pointwise,
    "copy": arithmetic.copied,
    **_all(PRODUCTS, arithmetic.matrix_product),
    "convolution": arithmetic.convolution,
    **_all(BATCH_NORMS, arithmetic.normalized_by_batch),
    **_all("native_layer_norm _fused_rms_norm", arithmetic.normalized_by_layer),
    "native_group_norm": arithmetic.normalized_by_group,
    "embedding": arithmetic.embedded,
    **_all(POOLED, arithmetic.pooled),
    "glu": arithmetic.gated,
    **_all(REDUCED, arithmetic.reduced),
    **_all(ORDERED, arithmetic.ordered),
}
