"""From run folders to summaries."""
