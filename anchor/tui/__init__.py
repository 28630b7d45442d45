"""anchor.tui."""
