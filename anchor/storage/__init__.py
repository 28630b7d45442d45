"""anchor.storage."""
