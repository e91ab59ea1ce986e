"""The wheel carries the small data sets and the recipes, which live at the top of the repository."""

from setuptools import find_packages, setup

outside = {"scdl_teach._data": "data", "scdl_teach._recipes": "notebooks/recipes"}
setup(
    packages=[*find_packages(include=["scdl_teach*"]), *outside],
    package_dir=outside,
    package_data={"scdl_teach": ["catalogue.csv"], "scdl_teach._data": ["*"], "scdl_teach._recipes": ["*.ipynb"]},
)
