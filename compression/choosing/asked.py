"""For which cost the search is asked next, so that its answer takes what it may (pure)."""

from dataclasses import dataclass

NEAR = 0.95
"""Of the target: what is forecast to take more than this of it needs no further question."""
_AIM = (1 + NEAR) / 2
_LESS = 0.98


@dataclass(frozen=True)
class Asked:
    """A share of time that is the target, and the cost that is asked for.

    What the search finds within a cost has another forecast than the cost says; forecasts rise with
    it on the whole.
    """

    target: float
    bound: float
    least: float = 0.0
    """The largest cost whose answer was forecast to be fast enough."""
    most: float = float("inf")
    """The least cost whose answer was not."""

    def near(self, predicted: float) -> bool:
        """Whether a forecast is just within the target."""
        return NEAR * self.target <= predicted <= self.target

    def better(self, predicted: float | None, best: float | None) -> bool:
        """Whether a forecast beats the best so far: the most within the target, else the least."""
        if predicted is None or best is None:
            return False
        if predicted <= self.target:
            return best > self.target or predicted > best
        return predicted < best

    def again(self, predicted: float) -> "Asked":
        """Ask for more or less, by how far the forecast of the answer is off."""
        slow = predicted > self.target
        least = self.least if slow else max(self.least, self.bound)
        most = min(self.most, self.bound) if slow else self.most
        return self._within(least, most, _AIM * self.bound * self.target / predicted)

    def less(self, cost: float) -> "Asked":
        """Ask for less than the cost of an answer that was seen to be too slow."""
        most = min(self.most, self.bound, cost)
        return self._within(self.least, most, _LESS * most)

    def _within(self, least: float, most: float, aim: float) -> "Asked":
        if least > 0 and most < float("inf"):
            aim = (least + most) / 2
        return Asked(self.target, aim, least, most)
