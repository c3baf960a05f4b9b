# SPDX-License-Identifier: Apache-2.0
from setuptools import find_packages, setup

PACKAGE = "rlif_node"

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
    description="What every node of the suite shares: parameters as a table, QoS, enums, graceful shutdown.",
    license="Apache-2.0",
)
