"""anchor.pyz as its users get it: how it is built, how it starts, whether it works."""
