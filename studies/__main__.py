"""`python -m studies` is the console script `studies`."""

from studies.cli import main

if __name__ == "__main__":
    main()
