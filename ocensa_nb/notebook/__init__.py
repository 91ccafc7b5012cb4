"""What the numbered notebooks call. Empty: `session` is imported before any dependency is installed."""
