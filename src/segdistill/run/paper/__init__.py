"""The paper's tables and figures, and runs laid out in them."""
