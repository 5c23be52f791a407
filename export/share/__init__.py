"""Runs to share: archives and repositories of the Hugging Face hub, checked file by file."""
