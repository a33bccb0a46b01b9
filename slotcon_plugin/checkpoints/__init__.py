"""Checkpoint files, read without running anything in them, and the work dirs in which runs leave them."""
