"""Heads with their truth, and the images that a scanner would take of them."""
