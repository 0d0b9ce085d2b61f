"""``python -m fcdcc.pipeline`` is ``fcdcc``."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="fcdcc")
