# SPDX-License-Identifier: Apache-2.0
from setuptools import find_packages, setup

PACKAGE = "rlif_policy"

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
    description="Observer and policy nodes: from sensors to an observation, from an observation to an action.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "observer = rlif_policy.observer_node:main",
            "policy = rlif_policy.policy_node:main",
            "success_detector = rlif_policy.success_detector_node:main",
        ]
    },
)
