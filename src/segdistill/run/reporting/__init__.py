"""What runs say, as tables, charts and one page."""
