"""How fast it goes, and where the time goes: the photos' side and the training step."""
