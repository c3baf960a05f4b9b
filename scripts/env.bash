# SPDX-License-Identifier: Apache-2.0
# Source this to use the suite from a shell:  source scripts/env.bash
# It puts .venv and the built workspace on the paths, on top of a sourced ROS 2 if there is one.
_rlif_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ ! -f "$_rlif_root/install/setup.bash" ]; then
    echo "nothing is built yet: run 'make setup' in $_rlif_root first" >&2
    unset _rlif_root
    return 1 2>/dev/null || exit 1
fi
export PATH="$_rlif_root/.venv/bin:$PATH"
if [ -d "$_rlif_root/.venv/share/rclpy" ]; then
    export AMENT_PREFIX_PATH="$_rlif_root/.venv${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}"
    export RMW_IMPLEMENTATION="${RMW_IMPLEMENTATION:-rmw_fastrtps_cpp}"
fi
# shellcheck disable=SC1091
. "$_rlif_root/install/setup.bash"
# DDS stays on this host unless you say otherwise: a demo in a lab must not reach anybody's robot.
export ROS_AUTOMATIC_DISCOVERY_RANGE="${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}"
# Fast DDS with room for images in shared memory, unless you have chosen transports: docs/cameras.md.
if [ -z "${FASTDDS_BUILTIN_TRANSPORTS:-}" ]; then
    # The first is read by Fast DDS 2 (Jazzy), the second by Fast DDS 3 (Kilted).
    export FASTRTPS_DEFAULT_PROFILES_FILE="${FASTRTPS_DEFAULT_PROFILES_FILE:-$_rlif_root/config/fastdds.xml}"
    export FASTDDS_DEFAULT_PROFILES_FILE="${FASTDDS_DEFAULT_PROFILES_FILE:-$_rlif_root/config/fastdds.xml}"
fi
# Logs of nodes and compiled kernels stay in the clone.
export RLIF_CACHE="${RLIF_CACHE:-$_rlif_root/.cache/rlif}"
export ROS_LOG_DIR="${ROS_LOG_DIR:-$_rlif_root/log/ros}"
# Cameras are rendered without a display, unless you say otherwise.
export MUJOCO_GL="${MUJOCO_GL:-egl}"
unset _rlif_root
