//! Which of the driver's errors mean that a process has lost its device.
//!
//! Source: CUDA Driver API reference, "Data types used by CUDA driver", `CUresult`: of these the
//! text says that the error "leaves the process in an inconsistent state and any further CUDA
//! work will return the same error. To continue using CUDA, the process must be terminated and
//! relaunched", or, of uncorrectable memory and of a device that is gone, that the context or the
//! device cannot be used. Codes are those of `cuda.h` and never change.

/// Codes that every later call answers as well, with their names.
const STICKY: [(u32, &str); 15] = [
    (46, "CUDA_ERROR_DEVICE_UNAVAILABLE"),
    (214, "CUDA_ERROR_ECC_UNCORRECTABLE"),
    (220, "CUDA_ERROR_NVLINK_UNCORRECTABLE"),
    (226, "CUDA_ERROR_CONTAINED"),
    (700, "CUDA_ERROR_ILLEGAL_ADDRESS"),
    (702, "CUDA_ERROR_LAUNCH_TIMEOUT"),
    (709, "CUDA_ERROR_CONTEXT_IS_DESTROYED"),
    (710, "CUDA_ERROR_ASSERT"),
    (714, "CUDA_ERROR_HARDWARE_STACK_ERROR"),
    (715, "CUDA_ERROR_ILLEGAL_INSTRUCTION"),
    (716, "CUDA_ERROR_MISALIGNED_ADDRESS"),
    (717, "CUDA_ERROR_INVALID_ADDRESS_SPACE"),
    (718, "CUDA_ERROR_INVALID_PC"),
    (719, "CUDA_ERROR_LAUNCH_FAILED"),
    (999, "CUDA_ERROR_UNKNOWN"),
];

/// The name of an error after which the process must end; `None` for one that concerns a single
/// call, like memory that is not there.
pub(super) fn sticky(code: u32) -> Option<&'static str> {
    let found = STICKY.iter().find(|(sticky, _)| *sticky == code);
    found.map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_device_are_sticky_and_those_of_a_call_are_not() {
        assert_eq!(sticky(700), Some("CUDA_ERROR_ILLEGAL_ADDRESS"));
        assert_eq!(sticky(719), Some("CUDA_ERROR_LAUNCH_FAILED"));
        assert_eq!(sticky(214), Some("CUDA_ERROR_ECC_UNCORRECTABLE"));
        // Success, wrong arguments, no memory, no device, not ready, no resources for a launch,
        // a stream that is being captured.
        for code in [0, 1, 2, 100, 600, 701, 900] {
            assert_eq!(sticky(code), None, "{code}");
        }
        assert!(STICKY.is_sorted_by_key(|(code, _)| *code));
    }

    /// The table against the driver's own names.
    #[cfg(feature = "cuda")]
    #[test]
    fn codes_have_the_names_that_the_driver_gives_them() {
        use candle_core::cuda_backend::cudarc::driver::sys::CUresult;
        for (code, result) in [
            (46, CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE),
            (220, CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE),
            (226, CUresult::CUDA_ERROR_CONTAINED),
            (702, CUresult::CUDA_ERROR_LAUNCH_TIMEOUT),
            (709, CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED),
            (710, CUresult::CUDA_ERROR_ASSERT),
            (714, CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR),
            (715, CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION),
            (716, CUresult::CUDA_ERROR_MISALIGNED_ADDRESS),
            (717, CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE),
            (718, CUresult::CUDA_ERROR_INVALID_PC),
        ] {
            assert_eq!(code, result as u32);
            assert_eq!(sticky(code), Some(format!("{result:?}").as_str()));
        }
    }
}
