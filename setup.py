"""Packages the composed tree; what is static stands in `pyproject.toml`."""

import os
import shutil
import sys

import setuptools

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

setuptools.setup(
    version=pip_build.fork_version(),
    package_dir={"": "build"},
    # Namespace packages too: `keras/src/backend/tests` has no __init__.py.
    packages=setuptools.find_namespace_packages(
        "build", include=["keras", "keras.*"], exclude=["*__pycache__*"]
    ),
    options={
        "build": {"build_base": SCRATCH},
        "egg_info": {"egg_base": SCRATCH},
    },
)
