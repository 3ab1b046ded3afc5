"""Which files are opened, and how: regular ones, one page, of known formats."""
