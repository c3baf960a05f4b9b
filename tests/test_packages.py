# SPDX-License-Identifier: Apache-2.0
"""Every package.xml declares what the package imports, and nothing else, by the keys of rosdep."""

from __future__ import annotations

import ast
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
PACKAGES = sorted(path.parent for path in SOURCE.glob("*/package.xml"))

# Import: key of rosdep (rosdep/python.yaml of ros/rosdistro). Packages of ROS have their own name.
KEYS = {
    "PIL": "python3-pil",
    "ament_index_python": "ament_index_python",
    "hypothesis": "python3-hypothesis",
    "matplotlib": "python3-matplotlib",
    "mcap": "mcap-ros2-support",  # of pip, which depends on mcap
    "mujoco": "python3-mujoco-pip",
    "numpy": "python3-numpy",
    "pytest": "python3-pytest",
    "rich": "python3-rich",
    "rosbags": "python3-rosbags-pip",
    "tensorboard": "python3-tensorboard-pip",
    "torch": "python3-pytorch-pip",
    "torchvision": "python3-torchvision-pip",
    "yaml": "python3-yaml",
    "zstandard": "python3-rosbags-pip",  # which depends on it
}
# No key of rosdep: pip installs them, as CONTRIBUTING.md says.
WITHOUT_KEY = {"safetensors"}
# Asked for by name where it is missing, by the command that needs it: no dependency.
OPTIONAL = {"ray", "rerun", "moveit", "setuptools"}
# Declared though no statement imports it.
INDIRECT = {
    "rlif_node": {"tf2_ros_py"},  # imported by name where ee_pose.tf is set, see pose_source.py
    "rlif_policy": {"cv_bridge"},  # image_encodings.py imports it by name, where it is installed
    "rlif_bringup": {
        "launch_ros", "ros2launch",  # which run launch/
        "rlif_intervention", "rlif_moveit", "rlif_policy", "rlif_sim",  # whose nodes that starts
    },
    "rlif_moveit": {"moveit_msgs", "control_msgs"},  # imported by name, see interfaces.py
    "rlif_intervention": {"control_msgs"},  # likewise, see gripper_node.py
}  # fmt: skip
# What tests use of a package that depends on theirs: declared, it would be a cycle to colcon.
TESTS_ONLY = {"rlif_learner": {"rlif_bags"}}


def imports(files: Iterator[Path]) -> set[str]:
    """Top-level names that the files import and that are not of Python itself."""
    found: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names)


def declared(package: Path, *kinds: str) -> set[str]:
    root = ElementTree.parse(package / "package.xml").getroot()
    return {str(element.text) for kind in kinds for element in root.findall(kind)}


def keys(names: set[str]) -> set[str]:
    return {KEYS.get(name, name) for name in names - OPTIONAL - WITHOUT_KEY}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_package_xml_declares_what_the_code_imports(package):
    code = (package / package.name).rglob("*.py")
    wanted = keys(imports(code) - {package.name}) | INDIRECT.get(package.name, set())
    found = declared(package, "depend", "exec_depend")
    if package.name == "rlif_msgs":  # whose messages say what they need
        wanted = {"rosidl_default_runtime", "builtin_interfaces"}
        for file in (package / "msg").glob("*.msg"):
            wanted |= set(re.findall(r"^(\w+)/\w+", file.read_text(encoding="utf-8"), re.MULTILINE))
    assert found == wanted


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_package_xml_declares_what_the_tests_import(package):
    shared = {path.stem for path in SOURCE.glob("*/test/**/*.py")}
    shared |= {path.stem for path in (SOURCE.parent / "tests" / "support").glob("*.py")}
    optional = {
        "av",
        "lerobot",
        "control_msgs",
        "h5py",
        "pyarrow",
        "minari",
    }  # skipped without them
    wanted = keys(imports((package / "test").rglob("*.py")) - shared - optional - {package.name})
    wanted -= TESTS_ONLY.get(package.name, set())
    missing = wanted - declared(package, "depend", "exec_depend", "test_depend")
    assert not missing


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_package_has_what_a_release_asks_for(package):
    root = ElementTree.parse(package / "package.xml").getroot()
    assert root.findtext("license") == "Apache-2.0"
    assert root.findtext("description")
    assert root.find("maintainer") is not None
    assert root.get("format") == "3"
    assert (package / "README.md").exists()
    assert (package / "CHANGELOG.rst").exists()
    setup = package / "setup.py"
    if setup.exists():  # where `colcon test` looks for what runs the tests
        assert 'extras_require={"test": ["pytest"]}' in setup.read_text(encoding="utf-8")
    elif (package / "test").exists():
        assert "BUILD_TESTING" in (package / "CMakeLists.txt").read_text(encoding="utf-8")


def test_versions_of_all_packages_are_the_same():
    assert len({package.name for package in PACKAGES}) == 9
    roots = [ElementTree.parse(package / "package.xml").getroot() for package in PACKAGES]
    assert len({root.findtext("version") for root in roots}) == 1
