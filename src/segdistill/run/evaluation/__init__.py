"""Measuring a network: how an image reaches it, what it reached, what it costs."""
