//! The last things of a kind, in bounded memory: to tell what is late from what never was.

use std::collections::VecDeque;

/// At most `N` things, the oldest forgotten first.
#[derive(Debug)]
pub struct Recent<T, const N: usize>(VecDeque<T>);

impl<T, const N: usize> Default for Recent<T, N> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T: PartialEq, const N: usize> Recent<T, N> {
    /// Remembers `thing`, as the newest one if it was there.
    pub fn add(&mut self, thing: T) {
        self.0.retain(|other| *other != thing);
        if self.0.len() == N {
            self.0.pop_front();
        }
        self.0.push_back(thing);
    }

    /// Whether `thing` is among them.
    pub fn has(&self, thing: &T) -> bool {
        self.0.contains(thing)
    }

    /// The newest.
    pub fn newest(&self) -> Option<&T> {
        self.0.back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten() {
        let mut recent = Recent::<u8, 3>::default();
        assert_eq!(recent.newest(), None);
        for thing in [1, 2, 3, 1, 4] {
            recent.add(thing);
        }
        assert_eq!(recent.newest(), Some(&4));
        assert!(recent.has(&1) && recent.has(&3) && !recent.has(&2));
    }
}
