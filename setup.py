"""Everything is in setup.cfg, but for one thing that it cannot say: the manifest stands once, at the top of the
repository, and has to be inside the wheel too."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithManifest(build_py):
    def run(self):
        super().run()
        if not self.editable_mode:
            self.copy_file("weights_manifest.json", str(Path(self.build_lib, "dfer_zoo", "weights_manifest.json")))


setup(cmdclass={"build_py": BuildWithManifest})
