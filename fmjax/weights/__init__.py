"""Names and files -> filled models, and the way back."""
