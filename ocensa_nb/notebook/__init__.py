"""What users see and press in a notebook. Empty: `session` is imported before any dependency is installed."""
