"""anchor.api."""
