# SPDX-License-Identifier: Apache-2.0
"""Reading bags: finished, damaged or cut off by a kill; rosbag2 (MCAP, SQLite) and ROS 1."""
