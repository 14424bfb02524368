"""Which indices of which parameters belong together: a run of the network follows each of them."""
