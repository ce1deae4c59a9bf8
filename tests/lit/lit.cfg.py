# lit's configuration: every .mlir, .qn and .test file under tests/lit runs its RUN lines in lit's own shell.
import os
import shutil

import lit.formats

config.name = "quern"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir", ".qn", ".test"]
config.excludes = ["Inputs"]
config.test_source_root = os.path.dirname(__file__)
config.test_exec_root = os.path.join(config.quern_binary_dir, "tests", "lit")

# The tools by name: ours first, then LLVM's (FileCheck, not, split-file, mlir-opt).
config.environment["PATH"] = os.pathsep.join(
    [os.path.join(config.quern_binary_dir, "bin"), config.llvm_tools_dir, config.environment["PATH"]]
)
for tool in ["quern", "quern-opt", "FileCheck", "not"]:
    if not shutil.which(tool, path=config.environment["PATH"]):
        lit_config.fatal(f"{tool} is not built or not installed: the tests that run it would fail for that reason alone")

# %kernels: the shipped .qn files.
config.substitutions.append(("%kernels", os.path.join(config.quern_source_dir, "kernels")))
# FileCheck's own options, so that every failure shows the input around it.
config.environment["FILECHECK_OPTS"] = "--dump-input=fail --dump-input-context=10"
