"""What is done with models beside merging them."""
