"""Students and teachers of the package's own, each a factory that returns an `nn.Module`."""
