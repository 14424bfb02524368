import random
import shutil
import subprocess

import pytest

from edgekd.errors import InputError
from edgekd.formats.library import read_library

SOURCE = """
const char table[4096] = {1};
int __tvm_ffi_conv2d(void) { return table[0]; }
int __tvm_ffi_add(void) { return 0; }
int __tvm_ffi__library_bin = 3;
int other(void) { return 1; }
"""
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("library")
    (folder / "kernels.c").write_text(SOURCE)
    path = folder / "kernels.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", path, folder / "kernels.c"], check=True)
    return path


@needs_compiler
def test_kernels_processor_and_constants_are_read(library):
    found = read_library(library)
    assert found.kernels == ("add", "conv2d")
    assert found.machine in ("x86_64", "aarch64")
    assert found.constant_bytes >= 4096
    assert found.gpu_code == ""


@needs_compiler
def test_machine_code_of_a_gpu_is_told_from_embedded_source(library, tmp_path):
    cubin = bytearray(64)
    cubin[:7] = b"\x7fELF\x02\x01\x01"
    cubin[18:20] = (190).to_bytes(2, "little")
    path = tmp_path / "gpu.so"
    path.write_bytes(library.read_bytes() + bytes(cubin))
    assert read_library(path).gpu_code == "cubin"
    path.write_bytes(library.read_bytes() + b'extern "C" __global__ void kernel() {}')
    assert read_library(path).gpu_code == ""


@needs_compiler
def test_mutations_end_in_an_input_error_or_in_a_library(library, tmp_path):
    content = library.read_bytes()
    path = tmp_path / "mutant.so"
    dice = random.Random(4)
    refused = 0
    for turn in range(300):
        mutant = bytearray(content[: dice.randrange(4, len(content))] if turn % 2 else content)
        for _ in range(0 if turn % 2 else 40):
            mutant[dice.choice([dice.randrange(4, 64), dice.randrange(4, len(mutant))])] ^= 0xFF
        path.write_bytes(mutant)
        try:
            read_library(path)
        except InputError:
            refused += 1
    assert refused > 150


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "model.so"
    path.write_bytes(b"MZ" * 100)
    with pytest.raises(InputError, match="not an ELF library"):
        read_library(path)
