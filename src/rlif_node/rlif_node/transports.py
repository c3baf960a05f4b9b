# SPDX-License-Identifier: Apache-2.0
"""Fast DDS without shared memory, for the nodes that keep a robot safe. No image passes through them.

A process that is killed, or crashes, can leave a mutex of Fast DDS's shared memory locked. Whoever
publishes to it then waits: one or two seconds, or for good (Fast-DDS#6484, open in 2.14 and 3).
An arbiter or a watchdog that does not return from `publish` is none. Over UDP there is no such mutex.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")  # Fast DDS 2 and 3
RANGE, LOCALHOST_ONLY = "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY"
SUITE = 'profile_name="rlif"'  # in config/fastdds.xml, which env.bash and the launch files set


def udp_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """What to set before rclpy is initialised, so that this process has no shared memory.

    Nothing where the user has chosen transports or a profile of their own, or a discovery range that
    allows for no profile.
    """
    if "FASTDDS_BUILTIN_TRANSPORTS" in environment or _has_own_profile(environment):
        return {}
    only_localhost = environment.get(LOCALHOST_ONLY) == "1"
    found = "LOCALHOST" if only_localhost else environment.get(RANGE, "SUBNET").upper()
    if found == "OFF":
        return {}
    if found != "LOCALHOST":
        return dict.fromkeys(PROFILES, str(Path(__file__).with_name("fastdds_udp.xml")))
    if environment.get("ROS_STATIC_PEERS") and not only_localhost:
        return {}
    # rmw_fastrtps adds shared memory to every profile for LOCALHOST, and nothing for SYSTEM_DEFAULT.
    profile = str(Path(__file__).with_name("fastdds_udp_localhost.xml"))
    variables = {**dict.fromkeys(PROFILES, profile), RANGE: "SYSTEM_DEFAULT"}
    return {**variables, LOCALHOST_ONLY: "0"} if only_localhost else variables


def _has_own_profile(environment: Mapping[str, str]) -> bool:
    for path in (environment[name] for name in PROFILES if environment.get(name)):
        try:
            if SUITE not in Path(path).read_text(encoding="utf-8"):
                return True
        except (OSError, UnicodeDecodeError):
            return True  # theirs to mend; Fast DDS says what is wrong with it
    return False
