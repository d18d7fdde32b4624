"""Commands that measure and show."""
