"""Predict with a finished run, and export it for deployment."""
