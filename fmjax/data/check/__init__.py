"""A set of images looked at whole, before a run has cost anything: what would stop it, and what its score should not
be believed for. Imports no jax."""
