"""Step 3 of 3: align the samples and write the store (--npz: the published files too)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from data.preparation.command import transform

if __name__ == "__main__":
    sys.exit(transform("ntu120"))
