"""What the commands do, from their options to what is printed or written."""
