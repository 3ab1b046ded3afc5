"""Labels of annotation tools: polygons and runs of pixels, read where they lie and drawn for each sample."""
