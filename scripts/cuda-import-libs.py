#!/usr/bin/env python3
"""Writes import libraries of CUDA: archives that a program links instead of the driver and the
toolkit's libraries, and that open those only when the first of their functions is called.

    scripts/cuda-import-libs.py CUDARC OUT

CUDARC is the folder of the crate's sources, whose bindings say which functions there are; OUT is
where libcuda.a, libcublas.a, libcublasLt.a, libcurand.a and libnvrtc.a go. Nothing is downloaded.

A program that is linked with these starts on machines without CUDA. There it must ask before it
calls (`models/src/cuda/libraries.rs` does): a function of a library that cannot be opened says so
and aborts, since no CUDA function has a result for it that callers understand.

How it works: each function is one jump through a slot. The slot begins with a piece of code that
saves every register which may hold an argument, asks `dlsym`, writes the slot, and jumps on; so
arguments, on the stack too, reach the real function untouched, whatever their number. Source:
System V ABI for AMD64, section 3.2.3: rdi, rsi, rdx, rcx, r8, r9 and xmm0 to xmm7 hold arguments,
al their number in vectors, r10 a static chain that C never has; r11 is free to use.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

# Library, folder of its bindings in cudarc, and what it is called where it is installed.
LIBRARIES = (
    ("cuda", "driver", ("libcuda.so.1",)),
    ("cublas", "cublas", ("libcublas.so.13",)),
    ("cublasLt", "cublaslt", ("libcublasLt.so.13",)),
    ("curand", "curand", ("libcurand.so.10",)),
    ("nvrtc", "nvrtc", ("libnvrtc.so.13",)),
)

# How cudarc's dynamic loading names a function: the complete list, whatever is linked.
FUNCTION = re.compile(r'load::<[^>]*>\("([A-Za-z_][A-Za-z0-9_]*)"\)')

# A library with fewer is a pattern that no longer fits cudarc's sources.
FUNCTIONS_MIN = 20

ENTRY = """
    .section .text.{name}, "ax", @progbits
    .globl {name}
    .type {name}, @function
{name}:
    jmp *slot_{name}(%rip)
first_{name}:
    lea text_{name}(%rip), %r11
    push %r11
    lea slot_{name}(%rip), %r11
    push %r11
    jmp paceline_{library}_first
    .size {name}, . - {name}

    .section .data.rel.local.{name}, "aw", @progbits
    .balign 8
slot_{name}:
    .quad first_{name}

    .section .rodata.{name}, "a", @progbits
text_{name}:
    .asciz "{name}"
"""

INTEGERS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9", "rax")
VECTORS = 8
# Seven integers, and one word so that vectors stand at a multiple of 16.
FRAME_BYTES = 8 * (len(INTEGERS) + 1) + 16 * VECTORS

RESOLVE = """
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

/* Finds a function and remembers it in its slot. Two threads may do so at once: both find the
   same, and dlopen counts. */
__attribute__((visibility("hidden")))
void *paceline_{library}_find(void **slot, const char *name) {{
    static const char *const files[] = {{{files}}};
    void *library = 0, *function = 0;
    for (unsigned i = 0; !library && i < sizeof files / sizeof *files; i++)
        library = dlopen(files[i], RTLD_LAZY | RTLD_GLOBAL);
    if (library)
        function = dlsym(library, name);
    if (!function) {{
        const char *why = dlerror();
        fprintf(stderr, "CUDA: %s of %s: %s\\n", name, files[0], why ? why : "not there");
        abort();
    }}
    __atomic_store_n(slot, function, __ATOMIC_RELEASE);
    return function;
}}
"""


def first_call(library):
    """The code that every slot of a library begins with. On the stack: slot, name, return."""
    saved = [f"    mov %{name}, {8 * at}(%rsp)" for at, name in enumerate(INTEGERS)]
    restored = [f"    mov {8 * at}(%rsp), %{name}" for at, name in enumerate(INTEGERS)]
    base = FRAME_BYTES - 16 * VECTORS
    saved += [f"    movups %xmm{at}, {base + 16 * at}(%rsp)" for at in range(VECTORS)]
    restored += [f"    movups {base + 16 * at}(%rsp), %xmm{at}" for at in range(VECTORS)]
    return "\n".join([
        f'    .section .text.paceline_{library}_first, "ax", @progbits',
        f"    .type paceline_{library}_first, @function",
        f"paceline_{library}_first:",
        "    push %rbp",
        "    mov %rsp, %rbp",
        f"    sub ${FRAME_BYTES}, %rsp",
        "    and $-16, %rsp",
        *saved,
        "    mov 8(%rbp), %rdi",
        "    mov 16(%rbp), %rsi",
        f"    call paceline_{library}_find",
        "    mov %rax, %r11",
        *restored,
        "    leave",
        "    add $16, %rsp",
        "    jmp *%r11",
        '    .section .note.GNU-stack, "", @progbits',
        "",
    ])


def build(cudarc, out, library, folder, files):
    """One archive. Returns how many functions it has."""
    source = (cudarc / "src" / folder / "sys" / "mod.rs").read_text()
    names = sorted(set(FUNCTION.findall(source)))
    if len(names) < FUNCTIONS_MIN:
        sys.exit(f"cuda-import-libs: {len(names)} functions of {library} in {cudarc}: not its bindings")
    with tempfile.TemporaryDirectory() as temporary:
        temporary = Path(temporary)
        entries = "".join(ENTRY.format(name=name, library=library) for name in names)
        (temporary / "entries.S").write_text(entries + first_call(library))
        listed = ", ".join(f'"{file}"' for file in files)
        (temporary / "find.c").write_text(RESOLVE.format(library=library, files=listed))
        for name in ("entries.S", "find.c"):
            command = ["cc", "-c", "-fPIC", "-O2", name, "-o", f"{library}-{name}.o"]
            subprocess.run(command, cwd=temporary, check=True)
        archive = out / f"lib{library}.a"
        archive.unlink(missing_ok=True)
        objects = [temporary / f"{library}-{name}.o" for name in ("entries.S", "find.c")]
        subprocess.run(["ar", "rcs", archive, *objects], check=True)
    return len(names)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    cudarc, out = Path(sys.argv[1]), Path(sys.argv[2])
    for library, folder, files in LIBRARIES:
        count = build(cudarc, out, library, folder, files)
        print(f"lib{library}.a: {count} functions", file=sys.stderr)


if __name__ == "__main__":
    main()
