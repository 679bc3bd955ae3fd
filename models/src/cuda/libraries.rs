//! Whether CUDA's libraries are there, asked before anything of them is called.
//!
//! The program is linked with import libraries (`scripts/cuda-import-libs.py`), which open a
//! library at the first call and abort where it is missing: so it starts everywhere, and this
//! must come first.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};

use super::probe::ProbeError;

/// What candle calls at the start; libnvrtc is for kernels that are compiled here, of which there
/// are none.
const LIBRARIES: [(&CStr, &str); 4] = [
    (c"libcuda.so.1", "libcuda.so.1"),
    (c"libcublas.so.13", "libcublas.so.13"),
    (c"libcublasLt.so.13", "libcublasLt.so.13"),
    (c"libcurand.so.10", "libcurand.so.10"),
];

unsafe extern "C" {
    fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
    fn dlerror() -> *mut c_char;
}

/// Functions are found when they are called, and by whoever asks: `RTLD_LAZY | RTLD_GLOBAL` of
/// glibc's `dlfcn.h`.
const LAZY_GLOBAL: c_int = 0x1 | 0x100;

/// Opens every library and leaves it open.
///
/// # Errors
/// [`ProbeError::Library`] names the first that is missing.
pub(super) fn open() -> Result<(), ProbeError> {
    for (file, library) in LIBRARIES {
        // SAFETY: `file` ends with a zero and outlives the call. Loading runs the library's own
        // initialisers: these are NVIDIA's, from where the machine's owner installed them.
        let handle = unsafe { dlopen(file.as_ptr(), LAZY_GLOBAL) };
        if handle.is_null() {
            let reason = reason();
            return Err(ProbeError::Library { library, reason });
        }
    }
    Ok(())
}

/// What the loader says of the last failure of this thread.
fn reason() -> String {
    // SAFETY: after a failure it is null or a text that ends with a zero, which is this thread's
    // until its next call of the loader; it is copied before.
    let text = unsafe {
        let text = dlerror();
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    let text = text.unwrap_or_else(|| "the loader does not say why".into());
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a machine with CUDA all are there; on any other the first that is not is named.
    #[test]
    fn a_missing_library_is_named() {
        match open() {
            Ok(()) => {}
            Err(ProbeError::Library { library, reason }) => {
                assert!(reason.contains(library), "{reason}");
            }
            Err(other) => panic!("{other}"),
        }
    }
}
