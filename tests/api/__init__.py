"""Tests of anchor.api."""
