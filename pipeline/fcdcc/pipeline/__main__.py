"""Run the command line: ``python -m fcdcc.pipeline`` is the same as ``fcdcc``."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="fcdcc")
