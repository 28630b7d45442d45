"""anchor.transport."""
