"""Tests of anchor.node."""
