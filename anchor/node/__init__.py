"""anchor.node."""
