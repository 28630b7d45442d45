"""Real clusters: real processes, real disks, real sockets."""
