"""A command over MQTT, from its signature to its answer."""
