"""What one step of a teaching compares: the losses of a recipe, teachers' answers, layers."""
