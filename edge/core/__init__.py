"""What every room uses: the messages that flow, errors, clock, threads, files. No domain."""
