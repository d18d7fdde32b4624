"""What lies on the disk of a device: versions, keys, denials, kept visits, crops, and their erasure."""
