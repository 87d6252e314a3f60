"""One-shot splits of any data set: which samples of the novel classes are exemplars.

A rule puts the samples of each novel class in an order, by their names alone; the first k are its
exemplars, the others are queries. All samples of the other classes are for training.

* ``first``: name order. NW-UCLA: first subject, first take, first view (a01_s01_e00_v01); NTU
  RGB+D: first setup, camera, performer and replication.
* ``ntu``: the exemplar that the NTU RGB+D 120 protocol names (Liu et al., TPAMI 2019, section 4;
  S001C003P008R001A001 to A055, S018C003P008R001A061 to A115), then name order. It also serves
  NTU RGB+D 60, whose share of these are A001 to A055.
* a list of names: these, in the order given.
"""

from collections.abc import Mapping, Sequence

from data.errors import DataError
from data.splits import EXEMPLARS

RULES = ("first", "ntu")


def choose_exemplars(
    names: Mapping[int, Sequence[str]], rule: str | Sequence[str], shots: int = 1
) -> dict[int, list[str]]:
    """Choose ``shots`` exemplars of every class.

    Args:
        names: the sample names of each novel class.
        rule: ``first``, ``ntu``, or a list of sample names.

    Returns:
        The exemplars of each class.

    Raises:
        DataError: an unknown rule, a class without the exemplar the rule names (it is named), or
            with too few samples for a query to be left.
    """
    if isinstance(rule, str) and rule not in RULES:
        raise DataError(f"exemplars: {rule!r} is neither a list of names nor one of {RULES}")
    if not isinstance(rule, str):
        known = {name for members in names.values() for name in members}
        unknown = [name for name in rule if name not in known]
        if unknown:
            raise DataError(f"exemplars: {unknown[0]} is no sample of a novel class")
    chosen = {label: _ordered(members, rule)[:shots] for label, members in names.items()}
    for label, exemplars in chosen.items():
        if len(exemplars) < shots or len(names[label]) <= shots:
            raise DataError(
                f"one-shot: novel class {label} has {len(names[label])} samples and "
                f"{len(exemplars)} exemplars; {shots} and at least one query are needed"
            )
    return chosen


def _ordered(members: Sequence[str], rule: str | Sequence[str]) -> list[str]:
    """The samples of one class that may be exemplars, the best first."""
    if not isinstance(rule, str):
        return [name for name in rule if name in set(members)]
    if rule == "first":
        return sorted(members)
    action = members[0][-4:]
    named = next((name for name in EXEMPLARS if name.endswith(action)), None)
    if named is None:
        raise DataError(f"exemplars: the ntu protocol has none for {action}; use the rule first")
    if named not in members:
        raise DataError(f"one-shot: the exemplar {named} is missing from the data set")
    return [named, *sorted(set(members) - {named})]
