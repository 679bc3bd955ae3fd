//! A fault on purpose: what a broken kernel would do to the device.
#![allow(unsafe_code)]

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{CudaStream, DriverError, LaunchConfig};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;

/// Writes to an address that no context has.
const KERNEL: &str = "
.version 7.8
.target sm_80
.address_size 64
.visible .entry write_nowhere() {
    .reg .b64 %address;
    .reg .b32 %value;
    mov.u64 %address, 64;
    mov.u32 %value, 1;
    st.global.u32 [%address], %value;
    ret;
}
";

/// Runs it, and waits for what the driver says.
pub(super) fn fault(stream: &Arc<CudaStream>) -> Result<(), DriverError> {
    let module = stream.context().load_module(Ptx::from_src(KERNEL))?;
    let function = module.load_function("write_nowhere")?;
    let one = LaunchConfig {
        grid_dim: (1, 1, 1),
        block_dim: (1, 1, 1),
        shared_mem_bytes: 0,
    };
    // SAFETY: of the host, nothing is touched: the kernel has no arguments. Of the device, it
    // writes where nothing is mapped, which the device answers with an error; that is its purpose.
    unsafe { stream.launch_builder(&function).launch(one)? };
    stream.synchronize()
}
