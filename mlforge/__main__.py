"""`python -m mlforge` is the command line."""

import sys

from mlforge.cli import main

if __name__ == "__main__":
    sys.exit(main())
