"""Step 2 of 3: reduce the bodies of NTU RGB+D 60 to at most two actors, in denoised_data/."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from data.preparation.command import choose_actors

if __name__ == "__main__":
    sys.exit(choose_actors("ntu60"))
