"""Layers as products of smaller ones: linear by SVD, convolutions by SVD and Tucker-2."""
