"""Changes galleries on the disk beside the daemon, which follows: a synchronisation, a removal."""
