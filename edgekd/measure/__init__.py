"""What is measured of a deployed file and concluded from it: accuracy, parity, budgets."""
