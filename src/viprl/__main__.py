"""`python -m viprl` is the same as `viprl`."""

from viprl.cli import main

if __name__ == "__main__":
    main()
