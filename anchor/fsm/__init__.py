"""anchor.fsm."""
