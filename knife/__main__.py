"""`python -m knife` is `knife`."""

from knife.cli.main import main

main()
