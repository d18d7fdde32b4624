"""Sends configuration, galleries and commands to doors, and waits for what they say."""
