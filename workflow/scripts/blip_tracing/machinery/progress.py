"""How far a job has come: a line in its log now and then, a bar where someone watches."""

import logging
import time
from types import TracebackType

from tqdm import tqdm

from blip_tracing.machinery.logs import terminal

SECONDS_BETWEEN_LINES = 30.0

logger = logging.getLogger(__name__)


class Progress:
    """Counts a job's examples and interventions, and says how long the rest will take."""

    def __init__(self, total: int, what: str) -> None:
        """Begin to count to `total` examples of `what`, the work's name."""
        self.total, self.what = total, what
        self.examples = self.interventions = 0
        self.started = self.said = time.monotonic()
        screen = terminal()
        self.bar = tqdm(
            total=total, desc=what, unit="example", file=screen, disable=screen is None, leave=False
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.bar.close()
        if kind is None:
            seconds = time.monotonic() - self.started
            logger.info("%s: %s in %.1f s", self.what, self._counts(), seconds)

    def add(self, examples: int, interventions: int) -> None:
        """Count what has been done since the last call."""
        self.examples += examples
        self.interventions += interventions
        self.bar.set_postfix_str(f"{self._rate():,.0f} interventions/s", refresh=False)
        self.bar.update(examples)
        now = time.monotonic()
        if now - self.said >= SECONDS_BETWEEN_LINES:
            self.said = now
            left = (now - self.started) * (self.total / self.examples - 1)
            logger.info("%s: %s, about %.0f s left", self.what, self._counts(), left)

    def _counts(self) -> str:
        return (
            f"{self.examples} of {self.total} examples, {self.interventions:,} interventions, "
            f"{self._rate():,.0f} a second"
        )

    def _rate(self) -> float:
        return self.interventions / max(time.monotonic() - self.started, 1e-9)
