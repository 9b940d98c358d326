"""Measurements in rounds, in which all that is compared takes turns."""

from collections import defaultdict
from statistics import quantiles


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
