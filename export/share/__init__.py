"""Shares runs as archives and on the Hugging Face hub, and verifies every file of what it gets."""
