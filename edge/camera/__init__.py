"""Frames: from devices, network streams, programs, clips and photos."""
