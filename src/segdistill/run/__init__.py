"""One file a command, each reading or writing a run."""
