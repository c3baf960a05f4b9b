# SPDX-License-Identifier: Apache-2.0
from setuptools import find_packages, setup

PACKAGE = "rlif_learner"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={PACKAGE: ["py.typed", "engines/*.cpp", "engines/*.h"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/" + PACKAGE]),
        ("share/" + PACKAGE, ["package.xml"]),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=True,
    maintainer="RLIF maintainers",
    maintainer_email="maintainers@rlif.invalid",
    description="Learner node: RLPD on interventions, replay buffer, labels.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "learner = rlif_learner.learner_node:main",
        ]
    },
)
