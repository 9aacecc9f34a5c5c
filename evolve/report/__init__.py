"""What people read: tables, cards, progress."""
