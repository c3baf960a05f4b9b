# SPDX-License-Identifier: Apache-2.0
"""The simulated world: a 7-DoF arm, a peg in its gripper, a board with a hole. No ROS.

The arm is driven as MoveIt Servo drives one: an end effector twist in the base frame becomes joint
velocities by damped least squares, integrated into position targets of stiff joint servos. Success
is the peg's tip `success_depth` below the board's face, inside the hole.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from rlif_sim.kinematics import damped_least_squares, rotation_error, stop_at_joint_limits

Array = NDArray[np.float64]

MODEL = Path(__file__).with_name("peg_in_hole.xml")
HOME = np.array([0.0, -0.35, 0.0, -2.35, 0.0, 2.0, np.pi / 4])  # rad, peg pointing down
HOLE_RADIUS = 0.011  # m, inscribed
CAMERAS = ("wrist", "fixed")

_CONTROL_STEPS = 5  # physics steps (2 ms) between two solutions of the inverse kinematics
_DAMPING = 0.03
_LIMIT_MARGIN = 0.05  # rad
_LEASH = 0.002  # rad: how far a joint's target may run ahead of the joint, which bounds the force
_UPRIGHT_GAIN = 3.0  # 1/s, takes back the orientation that the damping lets drift


@dataclass(frozen=True)
class WorldConfig:
    """What an episode starts from. Lengths in m, in the base frame."""

    board_center: tuple[float, float, float] = (0.48, 0.0, 0.12)
    board_spread: float = 0.04  # the board is placed up to this far from its centre, in x and y
    start_height: tuple[float, float] = (0.05, 0.09)  # of the peg's tip above the board's face
    start_spread: float = 0.04  # the peg starts up to this far from above the hole, in x and y
    success_depth: float = 0.02
    clearance: float = 0.001  # between the peg's radius and the hole's

    def __post_init__(self) -> None:
        low, high = self.start_height
        if not 0.0 < low <= high:
            raise ValueError(
                f"start_height: found {self.start_height}, expected 0 < low <= high (m)"
            )
        if not 0.0 <= self.board_spread <= 0.1:
            raise ValueError(f"board_spread: found {self.board_spread}, expected 0 to 0.1 m")
        if not 0.0 <= self.start_spread <= 0.1:
            raise ValueError(f"start_spread: found {self.start_spread}, expected 0 to 0.1 m")
        if not 0.0 < self.clearance <= 0.005:
            raise ValueError(f"clearance: found {self.clearance}, expected 0 to 0.005 m")
        if not 0.0 < self.success_depth <= 0.035:
            raise ValueError(f"success_depth: found {self.success_depth}, expected 0 to 0.035 m")


class PegInHole:
    """One arm, one board. `reset` starts an episode, `advance` moves the world."""

    def __init__(self, config: WorldConfig | None = None, seed: int = 0) -> None:
        self.config = config or WorldConfig()
        self._model = mujoco.MjModel.from_xml_path(str(MODEL))
        self._model.geom("peg").size[0] = HOLE_RADIUS - self.config.clearance
        self._data = mujoco.MjData(self._model)
        self._end_effector = self._model.site("end_effector").id
        self._sensor_site = self._model.site("force_torque").id
        self._lower, self._upper = self._model.jnt_range.T.copy()
        self._lead = -self._model.actuator_biasprm[:, 2] / self._model.actuator_gainprm[:, 0]  # s
        self._jacobian = np.zeros((6, self._model.nv))
        self._target = HOME.copy()
        self._upright = np.eye(3)
        self._tare = np.zeros(6)
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        self._rng = np.random.default_rng(seed)
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Place the board and the peg at random. With a seed, this and later resets repeat."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        config, data = self.config, self._data
        time = data.time
        mujoco.mj_resetData(self._model, data)
        data.time = time  # ROS time must not jump back
        offset = self._rng.uniform(-config.board_spread, config.board_spread, 2)
        hole = np.array(config.board_center)
        hole[:2] += offset
        data.mocap_pos[0] = hole
        start = hole.copy()
        start[:2] += self._rng.uniform(-config.start_spread, config.start_spread, 2)
        start[2] += self._rng.uniform(*config.start_height)
        data.qpos[:] = self._solve(start)
        data.ctrl[:] = self._target = data.qpos.copy()
        for _ in range(50):  # let the joints settle before the force sensor is tared
            mujoco.mj_step(self._model, data)
        data.qvel[:] = 0.0
        mujoco.mj_forward(self._model, data)
        self._tare = data.sensordata.copy()

    def _solve(self, position: Array) -> Array:
        """Joint positions [7] with the peg's tip at `position`, pointing down (Newton, from HOME)."""
        data = self._data
        data.qpos[:] = HOME
        self._upright = np.diag([1.0, -1.0, -1.0])
        for _ in range(30):
            mujoco.mj_kinematics(self._model, data)
            mujoco.mj_comPos(self._model, data)
            error = np.concatenate(
                [
                    position - self.end_effector_position,
                    rotation_error(self.end_effector_rotation, self._upright),
                ]
            )
            if np.abs(error).max() < 1e-6:
                break
            data.qpos += damped_least_squares(self._read_jacobian(), error, 0.01)
            np.clip(data.qpos, self._lower, self._upper, out=data.qpos)
        return data.qpos.copy()

    def _read_jacobian(self) -> Array:
        mujoco.mj_jacSite(
            self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._end_effector
        )
        return self._jacobian

    def advance(self, twist: Array, duration: float) -> None:
        """Move for `duration` (s) with the end effector at `twist` [6] (m/s, rad/s, base frame)."""
        twist = np.asarray(twist, dtype=np.float64)
        if twist.shape != (6,) or not np.isfinite(twist).all():
            raise ValueError(f"twist: found {twist}, expected 6 finite numbers (m/s, rad/s)")
        steps = round(duration / self._model.opt.timestep)
        while steps > 0:
            count = min(_CONTROL_STEPS, steps)
            self._control(twist, count * self._model.opt.timestep)
            mujoco.mj_step(self._model, self._data, nstep=count)
            steps -= count

    def _control(self, twist: Array, period: float) -> None:
        data = self._data
        correction = twist.copy()
        if not twist[3:].any():
            correction[3:] = _UPRIGHT_GAIN * rotation_error(
                self.end_effector_rotation, self._upright
            )
        else:
            self._upright = self.end_effector_rotation.copy()
        velocity = damped_least_squares(self._read_jacobian(), correction, _DAMPING)
        velocity = stop_at_joint_limits(
            velocity, data.qpos, self._lower, self._upper, _LIMIT_MARGIN
        )
        ahead = np.clip(self._target + velocity * period - data.qpos, -_LEASH, _LEASH)
        self._target = data.qpos + ahead
        data.ctrl[:] = self._target + velocity * self._lead

    @property
    def time(self) -> float:
        """Simulated time, s. Never goes back."""
        return float(self._data.time)

    @property
    def joint_names(self) -> list[str]:
        return [self._model.joint(i).name for i in range(self._model.njnt)]

    @property
    def joint_positions(self) -> Array:
        """[7] rad."""
        return self._data.qpos.copy()

    @property
    def joint_velocities(self) -> Array:
        """[7] rad/s."""
        return self._data.qvel.copy()

    @property
    def end_effector_position(self) -> Array:
        """Of the peg's tip, [3] m in the base frame."""
        return self._data.site_xpos[self._end_effector].copy()

    @property
    def end_effector_rotation(self) -> Array:
        """[3, 3], columns are the end effector's axes in the base frame."""
        return self._data.site_xmat[self._end_effector].reshape(3, 3).copy()

    @property
    def hole_position(self) -> Array:
        """Centre of the hole on the board's face, [3] m in the base frame."""
        return self._data.mocap_pos[0].copy()

    @property
    def wrench(self) -> Array:
        """What the board does to the peg: force [3] N and torque [3] Nm, base frame, tared."""
        rotation = self._data.site_xmat[self._sensor_site].reshape(3, 3)
        reading = (self._data.sensordata - self._tare).reshape(2, 3)
        # The sensor reports what the gripper does to the peg.
        return -(reading @ rotation.T).ravel()

    @property
    def success(self) -> bool:
        """Whether the peg is in the hole, `success_depth` deep."""
        offset = self.end_effector_position - self.hole_position
        return bool(-offset[2] >= self.config.success_depth and np.hypot(*offset[:2]) < HOLE_RADIUS)

    def field_of_view(self, camera: str) -> float:
        """Vertical, in degrees."""
        return float(self._model.camera(camera).fovy[0])

    def render(self, camera: str, width: int, height: int) -> NDArray[np.uint8]:
        """Picture [height, width, 3] of `camera` (one of CAMERAS), RGB."""
        if camera not in CAMERAS:
            raise ValueError(f"camera: found {camera!r}, expected one of {', '.join(CAMERAS)}")
        if (width, height) not in self._renderers:
            self._renderers[width, height] = mujoco.Renderer(self._model, height, width)
        renderer = self._renderers[width, height]
        renderer.update_scene(self._data, camera=camera)
        return renderer.render()

    def close(self) -> None:
        """Free the renderers."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
