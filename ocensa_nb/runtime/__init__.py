"""Hardware and process: what the machine has, number formats, seeds, signals, timing."""
