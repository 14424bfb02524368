"""Where a vendor's accelerator will run each operator, judged from the model file alone."""
