"""The straight line: frame to track to visit to event."""
