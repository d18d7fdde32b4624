"""Commands of whoever sets up one door and keeps it running."""
