//! What this machine is made of, as its system tells.
//!
//! GPUs are looked for on Linux: those of NVIDIA by the names that their driver gives, others by maker and number. The
//! engine computes on processors alone, so here a GPU is named and nothing is measured on it.

use std::{
    collections::BTreeSet,
    env::consts::{ARCH, OS},
    fs,
    num::NonZero,
    path::{Path, PathBuf},
    thread::available_parallelism,
};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};
use talka_base::{DeviceKind, Hardware};

const NVIDIA_GPUS: &str = "/proc/driver/nvidia/gpus";
const PCI_DEVICES: &str = "/sys/bus/pci/devices";
/// Makers of GPUs that could compute, by their PCI number; whatever else shows pictures is none.
const MAKERS: [(&str, &str); 3] = [("0x10de", "NVIDIA"), ("0x1002", "AMD"), ("0x8086", "Intel")];

/// This machine.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) hardware: Hardware,
    /// What does its work.
    pub(crate) kind: DeviceKind,
    pub(crate) memory_bytes: u64,
}

/// Its processors, at least one.
pub(crate) fn processors() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}

/// Asks the system.
pub(crate) fn look() -> Machine {
    let what = RefreshKind::nothing()
        .with_cpu(CpuRefreshKind::nothing())
        .with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(what).ok();
    let cpus = system.as_ref().map(System::cpus).unwrap_or_default();
    let cpu = cpus.first().map(|cpu| cpu.brand()).unwrap_or_default();
    let cores = u32::try_from(cpus.len()).unwrap_or(u32::MAX);
    let gpus = gpus(Path::new(NVIDIA_GPUS), Path::new(PCI_DEVICES));
    let hardware = Hardware::new(cpu, cores, &gpus, OS, ARCH);
    let kind = if matches!(OS, "android" | "ios") { DeviceKind::Mobile } else { DeviceKind::Cpu };
    Machine { hardware, kind, memory_bytes: system.map_or(0, |system| system.total_memory()) }
}

/// The names of all GPUs.
fn gpus(nvidia: &Path, pci: &Path) -> Vec<String> {
    let mut named: Vec<_> = folders(nvidia).iter().filter_map(|gpu| driver_name(gpu)).collect();
    let has_driver = !named.is_empty();
    let others = folders(pci).into_iter().filter_map(|device| pci_name(&device));
    named.extend(others.filter(|name| !has_driver || !name.starts_with("NVIDIA")));
    named
}

fn folders(of: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(of).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// The line `Model: NVIDIA GeForce RTX 4070` of what the driver tells.
fn driver_name(gpu: &Path) -> Option<String> {
    let text = fs::read_to_string(gpu.join("information")).ok()?;
    let model = text.lines().find_map(|line| line.strip_prefix("Model:"))?;
    Some(model.trim().into())
}

/// Such as `AMD GPU 0x744c`, if the device is a display controller of a maker of GPUs.
fn pci_name(device: &Path) -> Option<String> {
    let read =
        |file: &str| fs::read_to_string(device.join(file)).map(|text| text.trim().to_owned());
    let is_display = read("class").ok()?.starts_with("0x03");
    let name = numbered(&read("vendor").ok()?, &read("device").unwrap_or_default())?;
    is_display.then_some(name)
}

/// The name of a GPU by PCI numbers as the system writes them; nothing if its maker makes none.
pub(crate) fn numbered(vendor: &str, device: &str) -> Option<String> {
    let (_, maker) = MAKERS.into_iter().find(|(number, _)| *number == vendor)?;
    Some(format!("{maker} GPU {device}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().expect("a folder")).expect("folder made");
        fs::write(path, text).expect("written");
    }

    #[test]
    fn gpus_are_named_by_their_driver_or_by_their_number() {
        let root = tempfile::tempdir().expect("a folder");
        let (nvidia, pci) = (root.path().join("nvidia"), root.path().join("pci"));
        assert!(gpus(&nvidia, &pci).is_empty());
        for (slot, class, vendor, device) in [
            ("00", "0x030000", "0x1234", "0x1111"),
            ("01", "0x030200", "0x10de", "0x2684"),
            ("02", "0x020000", "0x8086", "0x1533"),
            ("03", "0x030000", "0x1002", "0x744c"),
        ] {
            for (file, text) in [("class", class), ("vendor", vendor), ("device", device)] {
                write(&pci.join(slot).join(file), &format!("{text}\n"));
            }
        }
        assert_eq!(gpus(&nvidia, &pci), ["NVIDIA GPU 0x2684", "AMD GPU 0x744c"]);
        let text = "Model: \t\t NVIDIA GeForce RTX 4090\nIRQ:   \t\t 42\n";
        write(&nvidia.join("0000:01:00.0/information"), text);
        assert_eq!(gpus(&nvidia, &pci), ["NVIDIA GeForce RTX 4090", "AMD GPU 0x744c"]);
    }

    #[test]
    fn a_machine_is_the_same_when_it_is_looked_at_again() {
        let machine = look();
        assert!(machine.hardware.cores() > 0 && machine.memory_bytes > 0);
        assert_eq!(look().hardware.id(), machine.hardware.id());
    }
}
