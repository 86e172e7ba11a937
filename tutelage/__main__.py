"""`python -m tutelage` is the command line."""

from tutelage.cli.main import main

main()
