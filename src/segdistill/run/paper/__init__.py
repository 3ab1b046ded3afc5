"""The paper's tables and figures, filled with runs."""
