# SPDX-License-Identifier: Apache-2.0
"""Fast DDS without shared memory, for the nodes that keep a robot safe. No image passes through them.

A process that is killed, or crashes, can leave a mutex in Fast DDS's shared memory locked. Every process
that publishes to it then blocks: for a second or two, or for good (Fast-DDS#6484, open in 2.14 and 3).
UDP has no such mutex.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")  # Fast DDS 2 and 3
RANGE, BUILTIN = "ROS_AUTOMATIC_DISCOVERY_RANGE", "FASTDDS_BUILTIN_TRANSPORTS"
# Settings with which rmw_fastrtps has shared memory, whatever the profile says.
FIXED = ("ROS_LOCALHOST_ONLY", "ROS2_EASY_MODE")
UDP, UDP_LOCALHOST = (
    Path(__file__).with_name(name) for name in ("fastdds_udp.xml", "fastdds_udp_localhost.xml")
)
# Of config/fastdds.xml, which env.bash and the launch files set. An edited copy is the user's own.
SHIPPED = "53d1fca167d5f34916ed83425c1147971fe0d3739328def39f2d99859c95361e"


def disable_shared_memory() -> str:
    """Set this process's environment so; call it before rclpy is initialised.

    Returns why the process may use shared memory all the same; empty: it does not.
    """
    import rclpy  # here, as `rlif` takes the names from this module without ROS

    if not rclpy.get_rmw_implementation_identifier().startswith("rmw_fastrtps"):
        return ""
    variables, problem = udp_variables(os.environ)
    os.environ.update(variables)
    return problem


def udp_variables(environment: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """The variables to set, and why none is set where the user has configured something else."""
    given = [environment[name] for name in PROFILES if environment.get(name)]
    if given and all(path in (str(UDP), str(UDP_LOCALHOST)) for path in given):
        return {}, ""  # set by a parent process
    own = [
        name for name in PROFILES if environment.get(name) and not _is_shipped(environment[name])
    ]
    own += [name for name in FIXED if environment.get(name, "0") not in ("", "0")]
    own += [BUILTIN] if environment.get(BUILTIN, "UDPv4") != "UDPv4" else []
    found = environment.get(RANGE) or "SUBNET"
    if found == "OFF":
        own.append(f"{RANGE}={found}")
    elif found not in ("SUBNET", "SYSTEM_DEFAULT") and environment.get("ROS_STATIC_PEERS"):
        own.append(f"ROS_STATIC_PEERS with {RANGE}={found}")
    if own:
        return {}, f"{' and '.join(own)} is set: this process may use shared memory"
    if found in ("SUBNET", "SYSTEM_DEFAULT"):
        return dict.fromkeys(PROFILES, str(UDP)), ""
    # LOCALHOST, as rcl reads every other value too. For it rmw_fastrtps adds shared memory to each
    # profile; for SYSTEM_DEFAULT it adds nothing.
    return {**dict.fromkeys(PROFILES, str(UDP_LOCALHOST)), RANGE: "SYSTEM_DEFAULT"}, ""


def _is_shipped(path: str) -> bool:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() == SHIPPED
    except OSError:
        return False  # Fast DDS reports it
