//! A terminal of our own: what a program draws on it, as a person would see it.

use crate::harness::{talka, wait_for};
use pty_process::{Size, blocking::Pty};
use std::{
    io::{Read, Write},
    num::NonZeroU16,
    process::Child,
    sync::{Arc, Mutex, PoisonError},
    thread,
};
use vt100::Parser;

/// Lines and columns of the terminal.
pub const SIZE: [u16; 2] = [24, 80];

/// A terminal on which a program runs; killed when dropped.
pub struct Terminal {
    child: Child,
    pty: Arc<Pty>,
    seen: Arc<Mutex<Seen>>,
}

/// What came from the program.
struct Seen {
    parser: Parser,
    bytes: Vec<u8>,
    /// Nothing more will come.
    ended: bool,
}

impl Terminal {
    /// Runs a line of the shell, in which `talka` is the program, on a terminal of [`SIZE`].
    #[track_caller]
    pub fn run(line: &str, variables: &[(&str, &str)]) -> Self {
        let (pty, pts) = pty_process::blocking::open().expect("a terminal");
        let [rows, columns] = SIZE;
        pty.resize(Size::new(rows, columns)).expect("a size");
        let program = talka(&[]);
        let line = format!("talka() {{ {:?} \"$@\"; }}\n{line}", program.get_program());
        let mut command = pty_process::blocking::Command::new("sh").args(["-c", &line]);
        // A terminal that most programs know, and no wish of whoever runs the tests.
        command = command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        for (name, value) in program.get_envs() {
            command = match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let child = command.envs(variables.iter().copied()).spawn(pts).expect("sh starts");
        let some = |n: u16| NonZeroU16::new(n).expect("a size");
        let parser = Parser::new(some(rows), some(columns), 0);
        let seen = Arc::new(Mutex::new(Seen { parser, bytes: Vec::new(), ended: false }));
        let (pty, told) = (Arc::new(pty), Arc::clone(&seen));
        let reader = Arc::clone(&pty);
        thread::spawn(move || read(&reader, &told));
        Self { child, pty, seen }
    }

    /// Types.
    pub fn press(&self, keys: &str) {
        (&*self.pty).write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Waits until the screen shows each of `words`.
    #[track_caller]
    pub fn shows(&self, words: &[&str]) -> String {
        wait_for(&format!("{words:?} on the screen"), || {
            let screen = self.screen();
            words.iter().all(|word| screen.contains(word)).then_some(screen)
        })
    }

    /// What a person sees now.
    pub fn screen(&self) -> String {
        self.lock().parser.screen().contents()
    }

    /// Whether the screen is one that goes away with its program, or its cursor is hidden.
    pub fn is_taken(&self) -> bool {
        let seen = self.lock();
        seen.parser.screen().alternate_screen() || seen.parser.screen().hide_cursor()
    }

    /// Waits for the end of the program; everything that it wrote.
    #[track_caller]
    pub fn ended(&mut self) -> String {
        wait_for("the end of the program", || {
            self.child.try_wait().expect("the process can be asked")?;
            self.lock().ended.then_some(())
        });
        String::from_utf8_lossy(&self.lock().bytes).into_owned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the terminal ---\n{}\n---", self.screen());
        }
        // It may have ended already; all that matters is that it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(pty: &Pty, seen: &Mutex<Seen>) {
    let mut piece = [0; 4096];
    loop {
        // The read fails once the last program on the terminal is gone.
        let read = (&*pty).read(&mut piece).unwrap_or(0);
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if read == 0 {
            seen.ended = true;
            return;
        }
        seen.parser.process(&piece[..read]);
        seen.bytes.extend_from_slice(&piece[..read]);
    }
}
