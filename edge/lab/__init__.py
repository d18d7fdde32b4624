"""What measures and shows. No door carries it."""
