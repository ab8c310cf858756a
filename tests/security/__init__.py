"""What hostile and damaged files may do: nothing but be refused."""
