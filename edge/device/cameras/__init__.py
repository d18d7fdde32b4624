"""The cameras of the running door, and where their pictures may go besides."""
