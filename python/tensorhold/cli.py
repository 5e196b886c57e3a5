"""The command `tensorhold`: arguments in, exit code out; the work is done by the extension."""

import sys

from tensorhold._native import cli_main


def main() -> int:
    """The exit code of `tensorhold` run with the arguments of this process."""
    return cli_main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
