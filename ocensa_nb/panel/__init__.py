"""The control panel of notebook 03: settings, a training in another process, and its progress."""
