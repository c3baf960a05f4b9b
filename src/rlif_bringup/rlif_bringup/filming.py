# SPDX-License-Identifier: Apache-2.0
"""The film of a run: some episodes of its evaluation, out of its own bag, with its own critic."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlif_bringup.graph_client import GraphClient
from rlif_bringup.simulation import launch_values
from rlif_bringup.summary import EpisodeRecord, of_phase

COUNT = 3  # episodes, where nothing else is asked for
GIF, MP4 = "episodes.gif", "episodes.mp4"
HELP = f"with images: episodes of the evaluation in {GIF} ({COUNT}); 0: none"  # of --film


@dataclass(frozen=True)
class FilmPlan:
    """What shall be filmed.

    count: of episodes; encoder_weights: the policy's parameter, for a checkpoint with a frozen
    encoder
    """

    bag: Path
    count: int
    encoder_weights: str


def films(asked: int | None, values: Mapping[str, object]) -> bool:
    """Whether a run with these launch values shall have a film, which needs a bag of images."""
    return asked != 0 and launch_values(values).get("images") == "true"


def plan_film(
    asked: int | None,
    values: Mapping[str, object],
    graph: GraphClient,
    say: Callable[[str], None],
) -> FilmPlan | None:
    """Called while the graph runs. None: no film; `say` gets the reason, where one was expected.

    asked: what --film says; None: nothing
    """
    bag = str(values.get("bag_directory", "none"))
    if not films(asked, values):
        if asked:
            say("no film: the cameras are off; --images turns them on")
        return None
    if bag == "none":
        say("no film: bag_directory is none, so nothing is recorded")
        return None
    weights = str(graph.parameters("policy").get("encoder_weights", ""))
    return FilmPlan(Path(bag), asked or COUNT, weights)


def make_film(
    plan: FilmPlan | None,
    records: Sequence[EpisodeRecord],
    checkpoint: Path,
    directory: Path,
    say: Callable[[str], None],
) -> None:
    """Write episodes.gif, and episodes.mp4 where PyAV is installed, of the policy's evaluation.

    What cannot be done is reported in a line: no run fails for want of its film. `checkpoint`: one, or
    the folder of a run.
    """
    if plan is None:
        return
    episodes = [record.id for record in of_phase(records, "policy")]
    if not episodes:
        say("no film: the policy was not evaluated")
        return
    # These take a second to import, and a run without a film needs none of them.
    from rlif_bags.drawing.critic_values import load_critic
    from rlif_bags.drawing.film import Film, find_takes
    from rlif_bags.drawing.film_files import write_film
    from rlif_bags.reading.files import BagError
    from rlif_learner.data.checkpoint import CheckpointError

    values = None
    try:
        values = load_critic(checkpoint, plan.encoder_weights).values
    except (CheckpointError, ValueError, OSError) as error:
        say(f"the film goes without the critic's value: {error}")
    try:
        film = Film(find_takes(plan.bag, episodes[: plan.count], values=values))
        write_film(film, directory / GIF)
        if importlib.util.find_spec("av") is not None:
            write_film(film, directory / MP4)
    except (BagError, CheckpointError, ValueError, OSError) as error:
        say(f"no film, or not all of it: {error}")
