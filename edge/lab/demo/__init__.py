"""`make run`: real clips, a broker, a daemon, and what a subscriber hears."""
