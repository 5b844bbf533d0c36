//! Which GPUs are there.

use crate::{
    Effort, GpuError, Rates,
    device::Device,
    measure,
    patience::{wait, within},
};
use std::{collections::BTreeSet, fmt, time::Duration};
use talka_base::DeviceKind;
use wgpu::{AdapterInfo, Backends, DeviceType, Features, Instance, InstanceDescriptor};

/// Drivers are looked for and asked in less than a second, but those that wake a card from sleep.
const LIST_TIME_MAX: Duration = Duration::from_secs(20);
/// All of a measurement: some seconds, and a minute of compiling by the slowest drivers.
const MEASURE_TIME_MAX: Duration = Duration::from_secs(90);

/// What numbers a product is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precision {
    /// 32 bits, with sums in as many.
    F32,
    /// 16 bits, with sums of sixteen products in as many and sums of those in 32.
    F16,
    /// Integers of 8 bits, four at once, with sums in 32.
    Int8,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Int8];
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        })
    }
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// GPUs.
    Hardware,
    /// Drivers that compute on processors as well, so that tests need no GPU.
    SoftwareToo,
}

/// A GPU that a driver shows.
#[derive(Debug, Clone)]
pub struct Gpu {
    /// As its driver names it.
    pub name: String,
    /// [`DeviceKind::Cpu`] if it is none.
    pub kind: DeviceKind,
    /// Its maker's and its own PCI number; where there is no such bus, whatever the driver says.
    pub pci: [u32; 2],
    /// What products it makes.
    pub precisions: Vec<Precision>,
    adapter: wgpu::Adapter,
}

impl Gpu {
    /// Measures it for some seconds, as `effort` says.
    ///
    /// # Errors
    /// [`GpuError`] if nothing could be measured. What only some parts of the measurement ran into is in the rates.
    pub fn measure(&self, effort: Effort) -> Result<Rates, GpuError> {
        let (adapter, precisions) = (self.adapter.clone(), self.precisions.clone());
        within(MEASURE_TIME_MAX, move || {
            let device = Device::open(&adapter)?;
            measure::rates(&device, &precisions, effort)
        })?
    }

    #[cfg(test)]
    pub(crate) fn open(&self) -> Result<Device, GpuError> {
        Device::open(&self.adapter)
    }
}

/// The GPUs of this machine, in the order of their drivers. None without a driver for Vulkan or Metal.
///
/// # Errors
/// [`GpuError::Silent`] or [`GpuError::BrokeOff`] if a driver does not even tell what it has.
pub fn list(which: Which) -> Result<Vec<Gpu>, GpuError> {
    within(LIST_TIME_MAX, move || {
        let instance = Instance::new(InstanceDescriptor {
            backends: Backends::VULKAN | Backends::METAL,
            // Whatever a build is for, the same is measured.
            flags: wgpu::InstanceFlags::empty(),
            ..InstanceDescriptor::new_without_display_handle()
        });
        let has_dots = instance
            .wgsl_language_features()
            .contains(wgpu::WgslLanguageFeatures::Packed4x8IntegerDotProduct);
        let mut buses = BTreeSet::new();
        let adapters = wait(instance.enumerate_adapters(Backends::all()));
        let gpus = adapters.into_iter().filter_map(|adapter| {
            let info = adapter.get_info();
            let kind = kind(info.device_type, which)?;
            // Two drivers may show one GPU.
            let is_new = info.device_pci_bus_id.is_empty() || buses.insert(info.device_pci_bus_id);
            let AdapterInfo { name, vendor, device, .. } = info;
            let precisions = precisions(adapter.features(), has_dots);
            is_new.then_some(Gpu { name, kind, pci: [vendor, device], precisions, adapter })
        });
        gpus.collect()
    })
}

/// What a device counts as; nothing if it is not looked for. A GPU lent to a virtual machine is a card somewhere.
fn kind(device: DeviceType, which: Which) -> Option<DeviceKind> {
    match device {
        DeviceType::DiscreteGpu | DeviceType::VirtualGpu => Some(DeviceKind::DiscreteGpu),
        DeviceType::IntegratedGpu => Some(DeviceKind::IntegratedGpu),
        DeviceType::Cpu if which == Which::SoftwareToo => Some(DeviceKind::Cpu),
        DeviceType::Cpu | DeviceType::Other => None,
    }
}

fn precisions(features: Features, has_dots: bool) -> Vec<Precision> {
    let has = |precision: &Precision| match precision {
        Precision::F32 => true,
        Precision::F16 => features.contains(Features::SHADER_F16),
        Precision::Int8 => has_dots,
    };
    Precision::ALL.into_iter().filter(has).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_gpus_are_listed_unless_tests_ask() {
        for (device, expected) in [
            (DeviceType::DiscreteGpu, Some(DeviceKind::DiscreteGpu)),
            (DeviceType::VirtualGpu, Some(DeviceKind::DiscreteGpu)),
            (DeviceType::IntegratedGpu, Some(DeviceKind::IntegratedGpu)),
            (DeviceType::Cpu, None),
            (DeviceType::Other, None),
        ] {
            assert_eq!(kind(device, Which::Hardware), expected, "{device:?}");
        }
        assert_eq!(kind(DeviceType::Cpu, Which::SoftwareToo), Some(DeviceKind::Cpu));
        let listed = list(Which::Hardware).expect("drivers that answer");
        assert!(listed.iter().all(|gpu| gpu.kind != DeviceKind::Cpu), "{listed:?}");
    }

    #[test]
    fn precisions_are_those_that_a_gpu_has() {
        use Precision::{F16, F32, Int8};
        assert_eq!(precisions(Features::empty(), false), [F32]);
        assert_eq!(precisions(Features::SHADER_F16, false), [F32, F16]);
        assert_eq!(precisions(Features::SHADER_F16, true), [F32, F16, Int8]);
    }
}
