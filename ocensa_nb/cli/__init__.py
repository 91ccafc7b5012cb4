"""The command line: verbs, arguments, messages and exit codes."""
