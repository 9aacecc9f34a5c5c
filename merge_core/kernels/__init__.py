"""What every element goes through."""
