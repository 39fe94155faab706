"""Makes PyTorch's Linux wheel load on a machine without CUDA, without the libraries that it names.

The wheel is built for CUDA, and the loader wants every library it was linked with, used or not. This puts small
libraries of the same names beside it, whose functions only return an error. On a CPU none of them is called: the
arithmetic lies in libtorch_cpu and is untouched. Where `import torch` works already (a wheel for CPUs, or CUDA
installed), nothing is done. Needs `nm`, `ldd` and a C compiler; torch.compile needs a C++ compiler anyway.
"""

import collections
import importlib.util
import pathlib
import re
import subprocess
import sys
import tempfile


def loads():
    found = subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, text=True)
    return found.returncode == 0, found.stderr


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def stand_in():
    folder = pathlib.Path(importlib.util.find_spec("torch").origin).parent / "lib"
    libraries = sorted(folder.glob("lib*.so"))
    missing = {line.split()[0] for path in libraries for line in output_of("ldd", path).splitlines()
               if line.endswith("not found")}
    wanted = collections.defaultdict(set)  # version -> names; most versions are named as their library
    for path in libraries:
        for line in output_of("nm", "-D", "--undefined-only", "--with-symbol-versions", path).splitlines():
            name, _, version = line.split()[-1].partition("@")
            wanted[version].add(name)
    for library in sorted(missing):
        version = "NVSHMEM" if library.startswith("libnvshmem") else library
        names = wanted[version]
        options = []
        with tempfile.TemporaryDirectory() as temporary:
            if names:
                script = pathlib.Path(temporary) / "versions"
                script.write_text(f"{version} {{ global: *; }};\n")
                options = [f"-Wl,--version-script={script}"]
            elif library.startswith("libnccl"):  # names without a version: one library has them all
                names = {name for name in wanted[""] if re.match("nccl|cuFile|cusparseLt", name)}
            source = "".join(f"int {name}(void) {{ return 1; }}\n" for name in sorted(names))
            subprocess.run(["cc", "-shared", "-o", folder / library, f"-Wl,-soname,{library}", *options,
                            "-x", "c", "-"], input=source, text=True, check=True)
    return sorted(missing)


if __name__ == "__main__":
    works, _ = loads()
    if not works:
        made = stand_in()
        works, error = loads()
        if not works:
            sys.exit(f"torch does not load: {error.strip().splitlines()[-1]}")
        print(f"stand-ins for {', '.join(made)}")
