//! The library as a runtime: its symbols, devices, errors and report.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::*;

/// What loaders look up, without the prefix.
const BOTH: &str = "GetDeviceCount GetDevice SetDevice DeviceGetAttribute DeviceGetPCIBusId MemGetInfo Malloc Free \
    MallocAsync FreeAsync HostRegister HostUnregister MemcpyAsync Memcpy2DAsync Memcpy StreamCreateWithFlags \
    StreamDestroy StreamSynchronize StreamWaitEvent StreamQuery EventCreateWithFlags EventRecord EventQuery \
    EventSynchronize EventDestroy DeviceSynchronize GetErrorName GetErrorString GetLastError PeekAtLastError \
    RuntimeGetVersion DriverGetVersion PointerGetAttributes DeviceGetDefaultMemPool MemPoolSetAttribute \
    MemPoolTrimTo";

const OTHERS: &str = "cudaHostAlloc cudaFreeHost hipHostMalloc hipHostFree cudaGetDriverEntryPoint \
    cudaGetDriverEntryPointByVersion hipDevicePrimaryCtxGetState tensorhold_double_version \
    tensorhold_double_configure tensorhold_double_report tensorhold_double_reset";

#[test]
fn every_function_has_both_names() {
    let double = Double::cuda("");
    let both = BOTH.split_whitespace();
    let names = both.flat_map(|name| [format!("cuda{name}"), format!("hip{name}")]);
    for name in names.chain(OTHERS.split_whitespace().map(String::from)) {
        assert!(!double.symbol(&name).is_null(), "{name}");
    }
    assert_eq!(double.call_symbol("tensorhold_double_version", &[]), 1);
}

#[test]
fn both_names_do_the_same() {
    for prefix in ["cuda", "hip"] {
        let double = Double::load(prefix);
        let (device, stream, event) = (double.malloc(64).unwrap(), double.stream(), double.event());
        let source = double.pinned(&[3; 64]);
        assert_eq!(double.copy(device, source, 64, TO_DEVICE, stream), 0);
        assert_eq!(double.record(event, stream), 0);
        assert_eq!(double.wait_event(0, event), 0);
        assert_eq!(double.synchronize(0), 0);
        assert_eq!(bytes_at(device, 64), [3; 64]);
        assert_eq!(double.free_host(source), 0);
        let calls = &double.report()["calls"];
        assert_eq!(calls["MemcpyAsync"], 1);
        assert_eq!(calls["HostAlloc"], 1);
        assert_eq!(double.set_device(2), INVALID_DEVICE);
    }
}

#[test]
fn errors_have_the_names_of_their_runtime() {
    let cuda = Double::load("cuda");
    assert_eq!(cuda.error_name(2), "cudaErrorMemoryAllocation");
    assert_eq!(cuda.error_text(600), "device not ready");
    assert_eq!(Double::load("hip").error_name(2), "hipErrorOutOfMemory");
}

#[test]
fn an_error_is_remembered_until_it_is_taken() {
    let double = Double::cuda("");
    assert_eq!(double.set_device(9), INVALID_DEVICE);
    assert_eq!(double.synchronize_device(), 0);
    assert_eq!(
        double.call_symbol("cudaPeekAtLastError", &[]),
        INVALID_DEVICE
    );
    assert_eq!(double.take_last_error(), INVALID_DEVICE);
    assert_eq!(double.take_last_error(), 0);
}

#[test]
fn asking_makes_no_context() {
    let double = Double::cuda("devices=3,integrated=1");
    assert_eq!(double.n_devices(), Ok(3));
    for device in 0..3 {
        assert_eq!(double.attribute(18, device), Ok(1));
        assert_eq!(
            double.pci_bus_id(device),
            format!("ffff:{:02x}:00.0", device + 1)
        );
        assert!(!double.has_context(device));
    }
    assert_eq!(double.report()["contexts"].as_array().unwrap().len(), 0);
    assert_eq!(double.set_device(2), 0);
    assert!(double.has_context(2) && !double.has_context(0));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| double.malloc(1).unwrap());
        other.join().unwrap();
    });
    assert_eq!(
        double.report()["contexts"],
        serde_json::json!([0, 2]),
        "a new thread begins with device 0"
    );
}

#[test]
fn a_driver_function_is_handed_out_by_name() {
    let double = Double::cuda("");
    let (mut entry, mut status) = (0_usize, 9);
    let place = std::ptr::from_mut(&mut entry) as usize;
    let status_place = std::ptr::from_mut::<i32>(&mut status) as usize;
    let name = c"cuDevicePrimaryCtxGetState".as_ptr() as usize;
    let by_version = "cudaGetDriverEntryPointByVersion";
    assert_eq!(
        double.call_symbol(by_version, &[name, place, 12000, 0, status_place]),
        0
    );
    assert_eq!(entry, double.symbol("cuDevicePrimaryCtxGetState") as usize);
    assert_eq!(status, 0);
    let name = c"cuNothing".as_ptr() as usize;
    assert_ne!(
        double.call_symbol("cudaGetDriverEntryPoint", &[name, place, 0, 0]),
        0
    );
    assert_eq!(entry, 0);
}

#[test]
fn a_machine_may_have_no_device() {
    let double = Double::cuda("devices=0");
    assert_eq!(double.n_devices(), Err(100));
    assert_eq!(double.malloc(1), Err(INVALID_DEVICE));
}

#[test]
fn a_reset_keeps_what_is_alive() {
    let double = Double::cuda("devices=1");
    let (device, stream) = (double.malloc(64).unwrap(), double.stream());
    double.destroy_stream(stream);
    let kept = double.stream();
    double.destroy_stream(stream);
    double.reset();
    let report = double.report();
    assert_eq!(report["calls"], serde_json::json!({}));
    assert_eq!(report["n_violations"], 0);
    assert_eq!(
        report["streams"],
        serde_json::json!({"live": 1, "total": 1})
    );
    assert_eq!(report["devices"][0]["bytes"], 64);
    assert_eq!(
        double.n_devices(),
        Ok(2),
        "the configuration is the first one again"
    );
    assert_eq!(double.free(device), 0);
    assert_eq!(double.destroy_stream(kept), 0);
}

#[test]
fn a_report_is_cut_to_its_buffer() {
    let double = Double::cuda("");
    let whole = double.report_text();
    let mut buffer = [1_u8; 8];
    let place = buffer.as_mut_ptr() as usize;
    assert_eq!(
        double.call_symbol("tensorhold_double_report", &[place, 8]),
        whole.len() as i32
    );
    assert_eq!(&buffer[..7], &whole.as_bytes()[..7]);
    assert_eq!(buffer[7], 0);
}

#[test]
fn the_library_is_also_there_under_hips_name() {
    let path = tensorhold_double::hip_library();
    assert!(path.exists());
    assert!(path.file_name().unwrap().to_str().unwrap().contains("hip"));
}
