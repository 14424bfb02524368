"""What is measured of a deployed file, and what is concluded from it: accuracy, parity, budgets."""
