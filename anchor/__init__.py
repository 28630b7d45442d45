"""anchor: a small, strongly consistent key-value store on Raft."""
