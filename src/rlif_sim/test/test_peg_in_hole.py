# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from rlif_sim.peg_in_hole import CAMERAS, PegInHole, WorldConfig
from rlif_sim.strategies import Approach


def relative(world):
    return world.end_effector_position - world.hole_position


def drive(world, steps=60, offset=(0.0, 0.0, 0.0)):
    approach = Approach()
    for _ in range(steps):
        twist = np.zeros(6)
        twist[:3] = approach.speed * approach.action(relative(world) - np.array(offset))
        world.advance(twist, approach.period)
        if world.success:
            return True
    return False


def test_world_driven_by_the_reference_ends_with_the_peg_in():
    world = PegInHole(seed=1)
    for _ in range(15):
        world.reset()
        assert drive(world)


def test_world_with_a_peg_beside_the_hole_has_no_success():
    world = PegInHole(seed=2)
    assert not drive(world, offset=(0.004, 0.0, 0.0))
    assert relative(world)[2] > -0.003


def test_world_wrench_of_pressing_on_the_board_is_bounded():
    world = PegInHole(seed=3)
    assert np.abs(world.wrench[:3]).max() < 2.0, "tared in free air"
    drive(world, offset=(0.02, 0.02, 0.0))
    down = np.array([0.0, 0.0, -0.05, 0.0, 0.0, 0.0])
    for _ in range(20):
        world.advance(down, 0.1)
    assert 5.0 < world.wrench[2] < 150.0, "the board pushes the peg up"


def test_world_advance_follows_the_twist():
    world = PegInHole(seed=4)
    before = world.end_effector_position
    for _ in range(10):
        world.advance(np.array([0.02, -0.03, 0.01, 0, 0, 0]), 0.1)
    moved = world.end_effector_position - before
    np.testing.assert_allclose(moved, [0.02, -0.03, 0.01], atol=0.003)
    np.testing.assert_allclose(world.end_effector_rotation, np.diag([1.0, -1.0, -1.0]), atol=0.02)


def test_world_reset_with_a_seed_repeats_and_time_goes_on():
    world = PegInHole(seed=5)
    world.reset(seed=11)
    first, time = (world.hole_position, world.end_effector_position), world.time
    world.reset()
    assert not np.allclose(world.hole_position, first[0])
    world.reset(seed=11)
    np.testing.assert_allclose(world.hole_position, first[0])
    np.testing.assert_allclose(world.end_effector_position, first[1], atol=1e-9)
    assert world.time > time


@pytest.mark.parametrize("twist", [np.full(6, np.nan), np.zeros(3)])
def test_world_advance_with_a_wrong_twist_moves_nothing(twist):
    world = PegInHole(seed=6)
    time = world.time
    with pytest.raises(ValueError, match="twist"):
        world.advance(twist, 0.1)
    assert world.time == time


def test_world_config_with_a_wrong_value_names_it():
    for wrong in (
        {"board_spread": -1.0},
        {"start_spread": 1.0},
        {"start_height": (0.1, 0.05)},
        {"success_depth": 0.2},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            WorldConfig(**wrong)


@pytest.mark.parametrize("camera", CAMERAS)
def test_world_render_shows_board_and_peg(camera):
    world = PegInHole(seed=7)
    try:
        picture = world.render(camera, 96, 64)
    finally:
        world.close()
    assert picture.shape == (64, 96, 3)
    assert picture.dtype == np.uint8
    red, green, blue = (picture[..., i].astype(int) for i in range(3))
    assert (blue - red > 60).sum() > 50, "the blue board"
    assert (red - blue > 60).sum() > 5, "the orange peg"


def test_world_render_of_an_unknown_camera_names_those_there_are():
    with pytest.raises(ValueError, match="wrist, fixed"):
        PegInHole().render("ceiling", 10, 10)
