# SPDX-License-Identifier: Apache-2.0
from setuptools import find_packages, setup

PACKAGE = "rlif_moveit"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={PACKAGE: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/" + PACKAGE]),
        ("share/" + PACKAGE, ["package.xml"]),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=True,
    maintainer="RLIF maintainers",
    maintainer_email="maintainers@rlif.invalid",
    description="Adapter to an existing MoveIt stack: Servo's services and status, resets by planning, the workspace box in RViz.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "servo_adapter = rlif_moveit.servo_adapter_node:main",
            "reset_by_planning = rlif_moveit.reset_node:main",
            "show_workspace = rlif_moveit.workspace_node:main",
        ]
    },
)
