"""A look at a cluster as a Ray job: `ray job submit --working-dir . -- python jobs/preflight.py`"""

import sys
from pathlib import Path

# A cluster's image need not have the package installed: it comes along with the working
# directory, and goes on from here to the workers.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from bayling.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["preflight", *sys.argv[1:]]))
