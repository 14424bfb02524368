"""Patch-by-patch inference: the first layers of a network computed one part of the image after the
other, so that no whole activation of them is ever in memory.

Lin et al. 2021, "MCUNetV2: memory-efficient patch-based inference for tiny deep learning"
(arXiv:2110.15352), section 3. Each patch also reads the halo that the windows of later layers reach
into, and computes it again; the bytes that come out are those of computing layer by layer.
"""
