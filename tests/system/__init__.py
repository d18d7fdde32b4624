"""The package in a real system: `make test-system`."""
