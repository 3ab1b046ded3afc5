"""What the label ids inside this package mean; ids in files are mapped to them by the data sets.

It imports nothing, so that every room may import it: the losses, too, which are otherwise
self-contained.
"""

IGNORED = 255
"""The id of pixels that belong to no class: no loss and no metric counts them."""
