"""Exported files in OpenVINO, which runs in a process of its own."""
