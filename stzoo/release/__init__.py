"""Models for others: folders and repositories with a card, and the entries of this checkout's catalogue."""
