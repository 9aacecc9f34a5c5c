"""What was tried, on disk and in events."""
