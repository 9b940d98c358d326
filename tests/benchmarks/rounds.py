"""Measurements in rounds, in which all that is compared takes turns, and their tables."""

from collections import defaultdict
from statistics import quantiles

RATIOS = ("first ÷ this, median", "quartiles")  # the head of describe_ratios()


def measure_in_turns(subjects, measure, rounds):
    """Return the results of each subject, one for each round."""
    results = defaultdict(list)
    subjects = list(subjects)
    for _ in range(rounds):
        for subject in subjects:
            results[subject].append(measure(subject))
        subjects.reverse()  # Nothing is always measured after the same other.
    return results


def compare(mine, others):
    """Return the quartiles of the ratios of results from the same round."""
    return quantiles([one / other for one, other in zip(mine, others, strict=True)], n=4)


def describe_ratios(mine, others, digits=2):
    """Return the median of the ratios and their quartiles, as two cells of a table."""
    low, middle, high = compare(mine, others)
    return f"{middle:.{digits}f}", f"{low:.{digits}f} to {high:.{digits}f}"


def print_table(head, rows):
    """Print a table in Markdown."""
    print(f"| {' | '.join(head)} |")
    print("|---|" + "---:|" * (len(head) - 1))
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
