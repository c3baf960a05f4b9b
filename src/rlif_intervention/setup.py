# SPDX-License-Identifier: Apache-2.0
from setuptools import find_packages, setup

PACKAGE = "rlif_intervention"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={PACKAGE: ["py.typed", "*.xml", "*.yaml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/" + PACKAGE]),
        ("share/" + PACKAGE, ["package.xml"]),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=True,
    maintainer="RLIF maintainers",
    maintainer_email="maintainers@rlif.invalid",
    description="Arbiter, episode and recorder nodes: control source, limits, recording.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "arbiter = rlif_intervention.arbiter_node:main",
            "episode = rlif_intervention.episode_node:main",
            "recorder = rlif_intervention.recorder_node:main",
            "watchdog = rlif_intervention.watchdog_node:main",
            "gripper = rlif_intervention.gripper_node:main",
        ]
    },
)
