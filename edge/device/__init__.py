"""The running door: the daemon and what it is assembled from."""
