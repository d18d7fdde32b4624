"""How alike the enrolled are: what that does to the threshold, and who is too alike."""
