"""anchor.client."""
