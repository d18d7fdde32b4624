"""What the daemon has done by child processes `edge ...`, which may fail, hang or grow without harm to it."""
