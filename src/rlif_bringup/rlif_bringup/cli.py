# SPDX-License-Identifier: Apache-2.0
"""The `rlif` command: a thin dispatch to one module per subcommand.

A command is a module with `add_arguments(parser)` and `run(arguments) -> int`. Modules are imported
when their command is asked for, so that `rlif --help` is quick and needs neither torch nor ROS.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# command: (module, what it does)
COMMANDS: dict[str, tuple[str, str]] = {
    "launch": ("rlif_bringup.launch_command", "run a launch file"),
    "demo": ("rlif_bringup.demo", "train on the simulated arm and evaluate, start to end"),
    "evaluate": ("rlif_bringup.evaluate", "evaluate a checkpoint on the simulated arm"),
    "new-robot": ("rlif_bringup.new_robot_command", "write the configuration of a robot"),
    "doctor": ("rlif_bringup.doctor", "check a live system before arming"),
    "status": ("rlif_bringup.status_command", "show the state of a live system"),
    "arm": ("rlif_bringup.operator_commands", "arm the arbiter"),
    "disarm": ("rlif_bringup.operator_commands", "disarm the arbiter"),
    "stop": ("rlif_bringup.stop_command", "stop the arm: FAULT, until released"),
    "start": ("rlif_bringup.operator_commands", "start an episode"),
    "success": ("rlif_bringup.operator_commands", "end the episode as a success"),
    "failure": ("rlif_bringup.operator_commands", "end the episode as a failure"),
    "discard": ("rlif_bringup.operator_commands", "discard the episode"),
    "set": ("rlif_bringup.set_command", "set a parameter of a running node"),
    "echo": ("rlif_bringup.echo_command", "print the messages of a topic"),
    "bag": ("rlif_bags.commands.bag", "look into, check and repair bags"),
    "replay": ("rlif_bags.commands.replay", "publish the Steps of bags for the learner"),
    "train": ("rlif_bags.commands.train", "train from bags, without a graph"),
    "detector": ("rlif_bags.commands.detector", "train a success detector from bags"),
    "relabel": ("rlif_bags.commands.relabel", "write bags with other labels"),
    "export": ("rlif_bags.commands.export", "convert bags to other formats"),
    "import": ("rlif_bags.commands.import_", "convert other formats to bags"),
    "show": ("rlif_bags.commands.show", "draw the episodes of a bag"),
    "film": ("rlif_bags.commands.film", "make a film of episodes of bags"),
}


def _exists(module: str) -> bool:
    """Whether a module is there, without importing its package, which may import torch."""
    package, *rest = module.split(".")
    spec = importlib.util.find_spec(package)
    roots = spec.submodule_search_locations if spec is not None else None
    return any(Path(root, *rest).with_suffix(".py").is_file() for root in roots or ())


def available() -> dict[str, tuple[str, str]]:
    """The commands whose module is installed."""
    return {name: entry for name, entry in COMMANDS.items() if _exists(entry[0])}


def _overview(commands: dict[str, tuple[str, str]]) -> str:
    lines = [f"  {name:<10} {text}" for name, (_, text) in commands.items()]
    return "\n".join(
        ["usage: rlif COMMAND [options]", "", *lines, "", "rlif COMMAND --help: options."]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        Exit code: 0 when all went well, 1 when the command failed, 2 when it was asked wrongly.
    """
    try:
        code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has gone, as in `rlif launch … | head`; all is stopped by now.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _dispatch(given: list[str]) -> int:
    commands = available()
    if not given or given[0] in ("-h", "--help", "help"):
        print(_overview(commands))
        return 0 if given else 2
    name, *rest = given
    if name not in commands:
        print(f"rlif: no command {name!r}\n\n{_overview(commands)}", file=sys.stderr)
        return 2
    path, text = commands[name]
    try:  # the imports too: torch alone takes a second
        module = importlib.import_module(path)
        parser = argparse.ArgumentParser(prog=f"rlif {name}", description=module.__doc__ or text)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.set_defaults(command=name)  # one module may serve several commands
        module.add_arguments(parser)
        # Intermixed, options may stand between positional arguments.
        intermixed = getattr(module, "INTERMIXED", False)
        parse = parser.parse_intermixed_args if intermixed else parser.parse_args
        return int(module.run(parse(rest)))
    except KeyboardInterrupt:
        print(f"rlif {name}: interrupted", file=sys.stderr)
        return 130
