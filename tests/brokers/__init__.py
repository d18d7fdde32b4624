"""Which brokers the product works with: `python -m tests.brokers`."""
