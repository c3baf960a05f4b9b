# SPDX-License-Identifier: Apache-2.0
"""A simulated arm with a peg and a board that takes Servo's messages, and a scripted operator with a joystick."""
