"""`python -m knife` is `knife`."""

from knife.cli import main

main()
