"""The students and teachers of this package: factories that return an `nn.Module`."""
