"""How fast, how large, beside what others do."""
