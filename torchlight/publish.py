"""What an evaluation leaves behind: lines in the log, reports and score files."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .card import Card
from .config import Config
from .evaluation import Evaluation
from .reports import topk_accuracy, write_report
from .scores import write_scores

TEST_STEM = "epoch1_test"
"""Files of a test run carry the name that published tools look for."""


@dataclass(frozen=True)
class Publisher:
    """Writes evaluations of ``dataset`` into ``folder`` (rank 0 calls it)."""

    config: Config
    folder: Path
    log: logging.Logger
    dataset: Any

    def report(self, evaluation: Evaluation, stem: str, title: str) -> None:
        """Log the top-k accuracies under ``title``; write ``<stem>_*`` reports."""
        top = topk_accuracy(evaluation.scores, evaluation.labels, self.config.show_topk)
        shown = ", ".join(f"top-{k} {100 * share:.2f} %" for k, share in top.items())
        self.log.info(f"{title}: test {shown} ({len(evaluation.labels)} samples)")
        write_report(
            self.folder,
            stem,
            evaluation.scores,
            evaluation.labels,
            evaluation.names,
            getattr(self.dataset, "class_names", None),
        )

    def scores(self, evaluation: Evaluation, card: Card) -> None:
        """Write the score files, with the weights' card, where the configuration wants them."""
        if self.config.save_score:
            write_scores(
                self.folder / f"{TEST_STEM}_score",
                evaluation.names,
                evaluation.scores,
                evaluation.labels,
                self.config.digest(),
                card,
            )
