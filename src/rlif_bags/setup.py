# SPDX-License-Identifier: Apache-2.0
from setuptools import find_packages, setup

PACKAGE = "rlif_bags"

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
    description="Bags of Steps: reading and repair, relabelling, external recordings, formats, pictures.",
    license="Apache-2.0",
    # The learner node reads its demonstrations through this: see rlif_learner.data.prior.
    entry_points={"rlif.step_readers": ["bags = rlif_bags.reading.step_reader:open_prior"]},
)
