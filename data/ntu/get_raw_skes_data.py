"""Step 1 of 3: read the raw recordings of NTU RGB+D 60 into raw_data/."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from data.preparation.command import read

if __name__ == "__main__":
    sys.exit(read("ntu60"))
