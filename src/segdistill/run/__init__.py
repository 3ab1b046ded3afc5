"""The commands, each of which reads or writes a run."""
