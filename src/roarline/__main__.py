"""`python -m roarline`."""

from roarline.cli import main

if __name__ == "__main__":
    main()
