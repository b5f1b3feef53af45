"""`python -m viprl` is `viprl`."""

from viprl.cli import main

if __name__ == "__main__":
    main()
