"""Training: the loop, distillation with its losses and schedules, and the teachers."""
