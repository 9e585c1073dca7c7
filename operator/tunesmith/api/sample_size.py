"""What a number of paired items can show. Pure.

The smallest true difference that a paired comparison finds in four of five cases, at 95%
confidence: (z_0.975 + z_0.8) * sqrt(d / n), where d is the share of items whose score differs
between the sides (arXiv:2411.00640, section on power). d is not known before; a fifth is what
fine-tuned models show on the tasks that they were tuned for, and gives 12.5 points for 100 items.
"""

from __future__ import annotations

import math

#: z for 95% confidence plus z for 80% power.
QUANTILES = 1.9600 + 0.8416
SHARE_OF_CHANGED_ITEMS = 0.2
#: Above it a sample is called small: what it cannot show matters to most who ask.
WORTH_SEEING_POINTS = 10.0


def detectable_points(items: int, changed: float = SHARE_OF_CHANGED_ITEMS) -> float:
    """In points (0-100), one decimal. Raises ValueError without items."""
    if items < 1:
        raise ValueError("nothing can be detected without items")
    return round(min(100.0, 100 * QUANTILES * math.sqrt(changed / items)), 1)


#: Ratings from 1 to 10 of two answers to the same question differ by about so much from item to
#: item. Assumed; it lies in the middle of what makes 80 questions detect 0.3 to 0.6.
RATING_DEVIATION = 1.5
#: From the worst rating, 1, to the best, 10.
RATING_RANGE = 9.0


def detectable_rating(items: int) -> float:
    """The same for a judge's ratings, in their own unit, two decimals. Raises ValueError, too."""
    if items < 1:
        raise ValueError("nothing can be detected without items")
    return round(min(RATING_RANGE, QUANTILES * RATING_DEVIATION / math.sqrt(items)), 2)
