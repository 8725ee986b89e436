"""Packages the composed tree; what is static stands in `pyproject.toml`."""

import os
import shutil
import sys

import setuptools
from setuptools.command import build_py

# Build front ends run this file without its directory on the path.
ROOT = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, ROOT)

import pip_build  # noqa: E402

try:
    pip_build.compose()
except pip_build.PatchError as e:
    sys.exit(f"error: {e}")

# Away from `build/lib`: `build/` is on the path when tests run.
# Made anew, or a file that the overlay lost would stay in the wheel.
SCRATCH = os.path.join(pip_build.BUILD, "wheel")
shutil.rmtree(SCRATCH, ignore_errors=True)
os.makedirs(SCRATCH)

# Upstream's wheel ships its tests; ours, and what they share, stay here.
OURS = "keras.src.testing.masked"
UPSTREAM = pip_build.UPSTREAM
BUILD = os.path.relpath(pip_build.BUILD, ROOT)


class BuildWithoutOurTests(build_py.build_py):
    def find_package_modules(self, package, package_dir):
        return [
            (package, module, path)
            for package, module, path in super().find_package_modules(
                package, package_dir
            )
            if not module.endswith("_test")
            or (UPSTREAM / os.path.relpath(path, BUILD)).exists()
        ]


setuptools.setup(
    version=pip_build.fork_version(),
    package_dir={"": BUILD},
    # Namespace packages too: `keras/src/backend/tests` has no __init__.py.
    packages=setuptools.find_namespace_packages(
        BUILD,
        include=["keras", "keras.*"],
        exclude=["*__pycache__*", OURS, f"{OURS}.*"],
    ),
    cmdclass={"build_py": BuildWithoutOurTests},
    options={
        "build": {"build_base": SCRATCH},
        "egg_info": {"egg_base": SCRATCH},
    },
)
