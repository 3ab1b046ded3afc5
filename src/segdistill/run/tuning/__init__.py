"""`segdistill tune`: the same grid and number of trials for every entry of a comparison."""
