"""Face recognition daemon for an unattended door camera."""

__version__ = "0.1.0"
