"""`python -m tensorhold` is the command `tensorhold`."""

import sys

from tensorhold.cli import main

if __name__ == "__main__":
    sys.exit(main())
