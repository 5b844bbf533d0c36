//! Sees what the owner does with the machine, for [`crate::core::owner`] to judge.
//!
//! The share of other programs comes from the system's own counts, on Linux, macOS and Windows. Typing is seen by when
//! terminals and input devices were last read, which Linux and the BSDs write down; a desktop whose devices are read
//! without that, as most graphical ones are, and Windows show their owners by what their programs compute alone.

use crate::core::owner::Activity;
use chrono::{Datelike, Local, Timelike};
use std::{
    fs::{self, DirEntry},
    time::SystemTime,
};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System, get_current_pid};
use talka_plan::availability::WeekMinute;

/// Folders of devices that a person types at.
const INPUTS: [&str; 2] = ["/dev/pts", "/dev/input"];

/// More devices in a folder than any person uses: what follows is not looked at.
const DEVICES_MAX: usize = 1_024;

/// Counts of the system as they were at the last look.
pub(crate) struct Watcher {
    /// Absent where nobody asks for it, or where the system does not say.
    counts: Option<(System, Pid)>,
}

impl Watcher {
    /// Watches programs and devices if activity is of interest, else the clock alone.
    pub(crate) fn new(activity: bool) -> Self {
        let counts = || {
            let (mut system, me) = (System::new().ok()?, get_current_pid().ok()?);
            refresh(&mut system, me);
            Some((system, me))
        };
        Self { counts: if activity { counts() } else { None } }
    }

    /// What was done since the last look, which must be most of a second ago.
    pub(crate) fn look(&mut self) -> Activity {
        let others_permille = self.counts.as_mut().and_then(|(system, me)| {
            refresh(system, *me);
            let own =
                f64::from(system.process(*me)?.cpu_usage()) / system.cpus().len().max(1) as f64;
            let all = f64::from(system.global_cpu_usage());
            Some(((all - own).max(0.0) * 10.0) as u32)
        });
        Activity { others_permille, ..self.glance() }
    }

    /// What can be seen at once.
    pub(crate) fn glance(&self) -> Activity {
        let now = Local::now();
        let minute =
            WeekMinute::new(now.weekday().num_days_from_monday(), now.hour(), now.minute());
        let typed_ms_ago = self.counts.as_ref().and_then(|_| typed_ms_ago());
        Activity { minute, typed_ms_ago, others_permille: None }
    }
}

fn refresh(system: &mut System, me: Pid) {
    system.refresh_cpu_usage();
    let only_me = ProcessesToUpdate::Some(&[me]);
    system.refresh_processes_specifics(only_me, false, ProcessRefreshKind::nothing().with_cpu());
}

/// Since the last of the devices was read.
fn typed_ms_ago() -> Option<u64> {
    let devices = INPUTS.iter().flat_map(|folder| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.take(DEVICES_MAX)
    });
    let read_at = |device: DirEntry| {
        // A terminal's other end, which all of them share, is read for whatever is printed.
        let is_typed_at = device.file_name() != "ptmx" && !device.file_type().ok()?.is_dir();
        device.metadata().ok().filter(|_| is_typed_at)?.accessed().ok()
    };
    let read = devices.filter_map(read_at).max()?;
    let ago = SystemTime::now().duration_since(read).unwrap_or_default();
    Some(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX))
}
