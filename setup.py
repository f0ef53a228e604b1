"""The package; `./run` sets it up with everything else, `pip install .` alone does, too.

The ranges below are what works; constraints.txt holds the exact versions that `./run` installs.
"""

from pathlib import Path

from setuptools import find_packages, setup

README = Path(__file__).with_name("README.md")

setup(
    name="flow-bindings-testbed",
    version="0.1.0",
    description="A Mininet testbed for Mobile IPv6 flow bindings",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    python_requires=">=3.10",
    packages=[
        *find_packages(include=["testbed", "testbed.*", "topologies", "topologies.*",
                                "controllers", "controllers.*", "experiments", "experiments.*"]),
        "profiles",  # data files alone; they stand beside the packages, as in the checkout
    ],
    package_data={"profiles": ["*/*.toml", "*/traces/*"]},
    install_requires=[
        "iperf3>=0.1.11",
        "matplotlib>=3.8",
        "mininet>=2.3.0.dev6",
        "msgspec>=0.18",
        "numpy>=1.26",
        "scapy>=2.5",
        # Mininet imports distutils, which Python 3.12 no longer has; setuptools stands in for it, so far
        "setuptools<81; python_version >= '3.12'",
        "tomli>=2; python_version < '3.11'",  # the standard library's tomllib
    ],
    extras_require={
        "tests": ["hypothesis>=6.100", "pytest>=8", "pytest-xdist>=3.6"],
        "cluster": ["distributed>=2024.1"],  # sweeps over several machines
        "controller": ["os-ken>=4"],  # the maintained continuation of Ryu
    },
    entry_points={"console_scripts": ["flowbind = testbed.agent.command:main"]},
    classifiers=[
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: System :: Networking",
    ],
)
