"""`segdistill suggest`: the largest student that is fast enough in the runtime that will be shipped."""
