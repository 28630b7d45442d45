"""The transport, on real gRPC over loopback."""
