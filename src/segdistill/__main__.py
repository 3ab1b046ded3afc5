"""`python -m segdistill` is the `segdistill` command."""

from segdistill.cli import main

main()
