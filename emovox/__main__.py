"""`python -m emovox`: the same as the command `emovox`."""

from emovox.cli import main

if __name__ == "__main__":
    main(prog_name="emovox")
