"""Decision to message: the connection to the broker."""
