"""From scores of items to what a search maximises."""
