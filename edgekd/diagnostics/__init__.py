"""What a report can say about a student, one diagnostic a file."""
