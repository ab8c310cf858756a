"""What a run can learn, one task a file."""
