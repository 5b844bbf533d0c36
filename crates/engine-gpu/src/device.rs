//! A GPU that is open: buffers, kernels, and waiting for what was asked.

use crate::{GpuError, patience::wait};
use std::{
    sync::{
        Arc, Mutex,
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};
use wgpu::{
    Adapter, BindGroup, BindGroupDescriptor, BindGroupEntry, Buffer, BufferDescriptor,
    BufferUsages, ComputePassDescriptor, ComputePipeline, ComputePipelineDescriptor,
    DeviceDescriptor, Error, Features, Limits, MapMode, PollError, PollType,
    ShaderModuleDescriptor, ShaderSource,
};

/// What is handed over at once takes milliseconds; systems reset a GPU that works for seconds.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// The first thing that went wrong and that nobody has looked at yet.
type Fault = Arc<Mutex<Option<GpuError>>>;

/// A GPU, open.
pub(crate) struct Device {
    device: wgpu::Device,
    queue: wgpu::Queue,
    fault: Fault,
}

/// A kernel with all that it works on, and how many workgroups of it: `[x, y]`.
#[derive(Debug)]
pub(crate) struct Step {
    pipeline: ComputePipeline,
    group: BindGroup,
    groups: [u32; 2],
}

/// Keeps `error` if it is the first one.
fn note(fault: &Fault, error: GpuError) {
    fault.lock().unwrap_or_else(|broken| broken.into_inner()).get_or_insert(error);
}

/// One line of what a driver's library says over many.
fn line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

impl Device {
    pub(crate) fn open(adapter: &Adapter) -> Result<Self, GpuError> {
        let most = adapter.limits();
        let limits = Limits {
            max_buffer_size: most.max_buffer_size,
            max_storage_buffer_binding_size: most.max_storage_buffer_binding_size,
            ..Limits::default()
        };
        let (device, queue) = wait(adapter.request_device(&DeviceDescriptor {
            required_features: adapter.features() & Features::SHADER_F16,
            required_limits: limits,
            ..DeviceDescriptor::default()
        }))
        .map_err(|error| GpuError::NoAccess(line(&error.to_string())))?;
        let fault = Fault::default();
        let noted = Arc::clone(&fault);
        device.on_uncaptured_error(Arc::new(move |error| {
            note(
                &noted,
                match error {
                    Error::OutOfMemory { .. } => GpuError::OutOfMemory,
                    Error::Validation { description, .. } | Error::Internal { description, .. } => {
                        GpuError::Refused(line(&description))
                    }
                },
            );
        }));
        let noted = Arc::clone(&fault);
        device.set_device_lost_callback(move |_, why| note(&noted, GpuError::Lost(line(&why))));
        Ok(Self { device, queue, fault })
    }

    /// The most bytes of one buffer.
    pub(crate) fn buffer_bytes_max(&self) -> u64 {
        let limits = self.device.limits();
        limits.max_buffer_size.min(limits.max_storage_buffer_binding_size)
    }

    /// Whether all went well so far. A full memory may be tried again with less, whatever else stays wrong.
    fn checked(&self) -> Result<(), GpuError> {
        let mut fault = self.fault.lock().unwrap_or_else(|broken| broken.into_inner());
        match &*fault {
            None => Ok(()),
            Some(GpuError::OutOfMemory) => Err(fault.take().unwrap_or(GpuError::OutOfMemory)),
            Some(error) => Err(error.clone()),
        }
    }

    /// A buffer of so many bytes, all nothing.
    pub(crate) fn buffer(&self, bytes: u64) -> Result<Buffer, GpuError> {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        self.made(bytes, usage)
    }

    fn made(&self, size: u64, usage: BufferUsages) -> Result<Buffer, GpuError> {
        let buffer = self.device.create_buffer(&BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        });
        self.checked().map(|()| buffer)
    }

    /// A buffer of these bytes, a multiple of four.
    pub(crate) fn upload(&self, bytes: &[u8]) -> Result<Buffer, GpuError> {
        let buffer = self.buffer(bytes.len() as u64)?;
        self.queue.write_buffer(&buffer, 0, bytes);
        self.checked().map(|()| buffer)
    }

    /// Four numbers that a kernel is told.
    pub(crate) fn numbers(&self, numbers: [u32; 4]) -> Result<Buffer, GpuError> {
        let buffer = self.made(16, BufferUsages::UNIFORM | BufferUsages::COPY_DST)?;
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.queue.write_buffer(&buffer, 0, &bytes);
        self.checked().map(|()| buffer)
    }

    /// Compiles the function `entry` of `source`.
    pub(crate) fn kernel(&self, source: &str, entry: &str) -> Result<ComputePipeline, GpuError> {
        let module = self.device.create_shader_module(ShaderModuleDescriptor {
            label: None,
            source: ShaderSource::Wgsl(source.into()),
        });
        self.checked()?;
        let pipeline = self.device.create_compute_pipeline(&ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some(entry),
            compilation_options: Default::default(),
            cache: None,
        });
        self.checked().map(|()| pipeline)
    }

    /// A kernel over `buffers`, bound in their order, in so many workgroups.
    pub(crate) fn step(
        &self,
        pipeline: &ComputePipeline,
        buffers: &[&Buffer],
        groups: [u32; 2],
    ) -> Result<Step, GpuError> {
        let entries: Vec<_> = (0..)
            .zip(buffers)
            .map(|(binding, buffer)| BindGroupEntry {
                binding,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        let group = self.device.create_bind_group(&BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        self.checked()?;
        Ok(Step { pipeline: pipeline.clone(), group, groups })
    }

    /// Has all `steps` done `times` times, each after the one before it; the time until all is over.
    pub(crate) fn run(&self, steps: &[Step], times: u32) -> Result<Duration, GpuError> {
        let begun = Instant::now();
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
        for _ in 0..times {
            for Step { pipeline, group, groups: [x, y] } in steps {
                pass.set_pipeline(pipeline);
                pass.set_bind_group(0, group, &[]);
                pass.dispatch_workgroups(*x, *y, 1);
            }
        }
        drop(pass);
        let index = self.queue.submit([encoder.finish()]);
        self.wait_for(index)?;
        Ok(begun.elapsed())
    }

    /// Until what was handed over as `index` is done.
    fn wait_for(&self, index: wgpu::SubmissionIndex) -> Result<(), GpuError> {
        // After a fault there may be nothing that comes to an end.
        self.checked()?;
        let wait = PollType::Wait { submission_index: Some(index), timeout: Some(ANSWER_TIME_MAX) };
        match self.device.poll(wait) {
            Ok(_) => {}
            Err(PollError::Timeout) => note(&self.fault, GpuError::Silent(ANSWER_TIME_MAX)),
            Err(error) => note(&self.fault, GpuError::Refused(error.to_string())),
        }
        self.checked()
    }

    /// What a buffer holds.
    pub(crate) fn read(&self, buffer: &Buffer) -> Result<Vec<u8>, GpuError> {
        let size = buffer.size();
        let here = self.made(size, BufferUsages::MAP_READ | BufferUsages::COPY_DST)?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &here, 0, size);
        let index = self.queue.submit([encoder.finish()]);
        let (tell, told) = mpsc::channel();
        here.map_async(MapMode::Read, .., move |done| {
            let _ = tell.send(done);
        });
        self.wait_for(index)?;
        match told.recv_timeout(ANSWER_TIME_MAX) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => note(&self.fault, GpuError::Refused(error.to_string())),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                note(&self.fault, GpuError::Silent(ANSWER_TIME_MAX));
            }
        }
        self.checked()?;
        let bytes = here.get_mapped_range(..);
        bytes.map(|bytes| bytes.to_vec()).map_err(|error| GpuError::Refused(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::software;

    #[test]
    fn what_a_driver_says_over_many_lines_is_told_in_one() {
        assert_eq!(line("\nShader error:\n\n   at line 7\n"), "Shader error:; at line 7");
    }

    /// Goal: no fault panics, the first one is told, and only a full memory may be tried again. Method: each on a
    /// device of its own.
    #[test]
    fn faults_are_told_and_stay() {
        let Some(gpu) = software() else { return };
        let device = gpu.open().expect("a device");
        let wrong = device.kernel("this is no program", "main").map(|_| ());
        assert!(
            matches!(&wrong, Err(GpuError::Refused(why)) if why.contains("expected")),
            "{wrong:?}"
        );
        assert_eq!(device.upload(&[0; 4]).map(|_| ()), wrong, "it stays wrong");

        let device = gpu.open().expect("a device");
        note(&device.fault, GpuError::OutOfMemory);
        assert_eq!(device.upload(&[0; 4]).map(|_| ()), Err(GpuError::OutOfMemory));
        let buffer = device.upload(&[1, 2, 3, 4]).expect("room for less");
        assert_eq!(device.read(&buffer), Ok(vec![1, 2, 3, 4]));

        device.device.destroy();
        let lost = device.read(&buffer);
        assert!(matches!(lost, Err(GpuError::Lost(_) | GpuError::Refused(_))), "{lost:?}");
    }
}
