"""From impressions to users: what each did in the first hours after they were first shown something.

The rules, and what they leave out is counted:

- An impression that is logged twice (same id) counts once, as first read.
- Clicks: of those on the same item of an impression the first counts; those on impressions that are not in the log, or
  on items that were not shown, do not.
- A user's *window* begins with their first impression. What they do in it is their outcome, which is final when the
  window is over; what they do later does not count. So every user is watched for as long as any other, and the outcomes
  of those who came first no longer change while others come: what a sequential test needs.
- A user belongs to the arm of their first impression, and all that they do in the window counts for it, even if they
  were shown another arm's results meanwhile (since weights were changed): to leave such users out would not be fair.
- A user with more than `max_impressions` in the window is taken for a robot and left out.
- An interleaved impression is won by the arm with more clicked items; a user prefers the arm that won more of their
  impressions. (The sum of clicks would let one impression with many clicks outvote the others.)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from dbnorm_vdb.experiments.gathering import Impressions, Integers, Tally
from dbnorm_vdb.experiments.sequential import Booleans, Floats


@dataclass(frozen=True)
class Users:
    """One row a user, in the order of their first impressions, which is the order in which their windows end.

    Attributes:
        final_at: (n,) Unix time at which the window ends.
        arm: (n,) that of the first impression; with interleaving, that which won its first toss, or -1.
        split: (n,) which split was in force then; -1 with interleaving.
        impressions: (n,) in the window.
        clicks: (n,) items clicked in the window.
        outcomes: (n,) each; the mean over the user's impressions.
    """

    final_at: Floats
    arm: Integers
    split: Integers
    impressions: Integers
    clicks: Integers
    outcomes: dict[str, Floats]

    def __len__(self) -> int:
        return len(self.final_at)

    def __getitem__(self, rows: Booleans) -> Users:
        return Users(
            self.final_at[rows],
            self.arm[rows],
            self.split[rows],
            self.impressions[rows],
            self.clicks[rows],
            {name: values[rows] for name, values in self.outcomes.items()},
        )


def split_users(shown: Impressions, *, window: timedelta, max_impressions: int, tally: Tally) -> Users:
    """The users of impressions of one arm, with their mean outcomes, all in [0, 1].

    `click_through`: whether anything was clicked; `reciprocal_rank`: of the item that was clicked first, 0 if none.
    """
    seen = _Window(shown, shown.split >= 0, window)
    first_clicked, first_click = np.unique(shown.clicked[seen.clicks], return_index=True)  # they are sorted by time
    click_through = np.zeros(len(shown.at))
    click_through[first_clicked] = 1
    reciprocal_rank = np.zeros(len(shown.at))
    reciprocal_rank[first_clicked] = 1 / shown.rank[seen.clicks][first_click]
    outcomes = {"click_through": seen.mean(click_through), "reciprocal_rank": seen.mean(reciprocal_rank)}
    other_arm = shown.arm[seen.impressions] != shown.arm[seen.first][seen.user_of_impression]
    tally.switched_users += len(np.unique(seen.user_of_impression[other_arm]))
    return seen.users(outcomes, max_impressions, tally)


def interleaved_users(shown: Impressions, *, window: timedelta, max_impressions: int, tally: Tally) -> Users:
    """The users of interleaved impressions, with the outcome `preference`: 1 the second arm, -1 the first, or 0."""
    seen = _Window(shown, shown.split < 0, window)
    preferred = shown.pair[1] if shown.pair else -1
    votes = np.where(shown.team[seen.clicks] == preferred, 1.0, -1.0)
    winner = np.sign(np.bincount(shown.clicked[seen.clicks], weights=votes, minlength=len(shown.at)))
    return seen.users({"preference": np.sign(seen.mean(winner))}, max_impressions, tally)


class _Window:
    """The impressions and clicks, of those of one kind, that fall into their users' windows.

    Attributes:
        first: (u,) the first impression of each user, in the order of time.
        impressions: (i,) those in the window.
        clicks: (c,) those in the window.
        user_of_impression: (i,) whose each is, by their place in `first`.
    """

    def __init__(self, shown: Impressions, chosen: Booleans, window: timedelta) -> None:
        rows = np.flatnonzero(chosen)
        by_user = rows[np.lexsort((shown.at[rows], shown.user[rows]))]
        first = by_user[np.unique(shown.user[by_user], return_index=True)[1]]
        self.first = first[np.argsort(shown.at[first], kind="stable")]
        count = int(shown.user.max(initial=-1)) + 1
        place = np.full(count, -1)
        place[shown.user[self.first]] = np.arange(len(self.first))
        end = np.full(count, -np.inf)
        end[shown.user[self.first]] = shown.at[self.first] + window.total_seconds()
        inside = chosen & (shown.at < end[shown.user])
        clicked_inside = inside[shown.clicked] & (shown.clicked_at < end[shown.user[shown.clicked]])
        self._shown, self._end = shown, end
        self.impressions = np.flatnonzero(inside)
        self.clicks = np.flatnonzero(clicked_inside)
        self.user_of_impression = place[shown.user[self.impressions]]
        self._user_of_click = place[shown.user[shown.clicked[self.clicks]]]
        self._late = int(chosen.sum()) - len(self.impressions), int(chosen[shown.clicked].sum()) - len(self.clicks)

    def mean(self, values: Floats) -> Floats:
        """(u,) each user's mean of a value of all impressions."""
        total = np.bincount(self.user_of_impression, weights=values[self.impressions], minlength=len(self.first))
        return total / np.maximum(np.bincount(self.user_of_impression, minlength=len(self.first)), 1)

    def users(self, outcomes: dict[str, Floats], max_impressions: int, tally: Tally) -> Users:
        """All of them but the robots."""
        shown, count = self._shown, len(self.first)
        impressions = np.bincount(self.user_of_impression, minlength=count)
        users = Users(
            self._end[shown.user[self.first]],
            shown.arm[self.first],
            shown.split[self.first],
            impressions,
            np.bincount(self._user_of_click, minlength=count),
            outcomes,
        )
        robots = impressions > max_impressions
        tally.robots += int(robots.sum())
        tally.robot_impressions += int(impressions[robots].sum())
        tally.late_impressions += self._late[0]
        tally.late_clicks += self._late[1]
        return users[~robots]
