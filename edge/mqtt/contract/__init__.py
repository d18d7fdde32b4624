"""What others program against: topics, messages, schemas, Home Assistant."""
