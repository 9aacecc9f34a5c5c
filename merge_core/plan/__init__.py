"""Recipe and headers become jobs, one for each tensor of the result."""
