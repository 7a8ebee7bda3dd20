//! The part of the threads' time that each class gets while it waits for more.
//!
//! What waits in a class is done in the time that its work takes, if the class has the threads to
//! itself. Beside others that wait too it gets a part of them, and a bound in time must know which.
//! Measured rather than derived from the rule of who goes next: it then also knows what that rule
//! makes of the requests that happen to come.

use accel::Class;

/// Shares, measured over windows of a fixed amount of work.
#[derive(Debug)]
pub(super) struct Service {
    classes: [OfClass; Class::ALL.len()],
    window_ns: u64,
    done_ns: u64,
}

#[derive(Debug, Clone, Copy)]
struct OfClass {
    /// Work done in this window.
    done_ns: u64,
    /// Whether it had nothing waiting at some time in this window: then it got all it asked for.
    emptied: bool,
    /// Mean over the last windows, each counting twice as much as the one before it.
    share: f64,
}

impl Service {
    /// Nobody has waited yet. A window is over when `window_ns` of work have been done.
    pub(super) fn new(window_ns: u64) -> Self {
        let class = OfClass {
            done_ns: 0,
            emptied: true,
            share: 1.0,
        };
        Self {
            classes: [class; Class::ALL.len()],
            window_ns,
            done_ns: 0,
        }
    }

    /// A class was given `time_ns`. `is_empty` says which classes have nothing waiting now.
    pub(super) fn gave(&mut self, class: Class, time_ns: u64, is_empty: impl Fn(Class) -> bool) {
        if is_empty(class) && Class::ALL.into_iter().all(&is_empty) {
            // The threads are everyone's again, and with few requests a window may last for minutes.
            *self = Self::new(self.window_ns);
            return;
        }
        let given = &mut self.classes[class.index()];
        given.done_ns += time_ns;
        given.emptied |= is_empty(class);
        self.done_ns += time_ns;
        if self.done_ns < self.window_ns {
            return;
        }
        for (class, of) in Class::ALL.into_iter().zip(&mut self.classes) {
            of.share = if of.emptied {
                1.0
            } else {
                f64::midpoint(of.share, of.done_ns as f64 / self.done_ns as f64)
            };
            of.done_ns = 0;
            of.emptied = is_empty(class);
        }
        self.done_ns = 0;
    }

    /// The part of the threads' time that a class gets while it waits for more: above 0, at most 1.
    pub(super) fn share(&self, class: Class) -> f64 {
        self.classes[class.index()].share.max(0.01)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_measured_while_a_class_waits_and_forgotten_when_it_does_not() {
        let mut service = Service::new(1000);
        let rsa_waits = |class| class != Class::Rsa2048;
        // Alone, and beside a class that gets three times as much but never has to wait.
        service.gave(Class::Rsa2048, 1000, rsa_waits);
        assert!(service.share(Class::Rsa2048) > 0.99);
        for _ in 0..400 {
            service.gave(Class::P256, 75, rsa_waits);
            service.gave(Class::Rsa2048, 25, rsa_waits);
        }
        assert!((service.share(Class::Rsa2048) - 0.25).abs() < 0.01);
        assert!(service.share(Class::P256) > 0.99);
        // A class that waits and gets nothing.
        for _ in 0..25 {
            service.gave(Class::P256, 1000, |class| class == Class::P256);
        }
        assert!(service.share(Class::Rsa4096) <= 0.01);
        service.gave(Class::P256, 1000, |class| class != Class::P256);
        service.gave(Class::P256, 1000, |class| class != Class::P256);
        assert!(service.share(Class::Rsa4096) > 0.99);
    }

    /// Or the first pipeline of a quiet hour would be refused for what others did in a busy one.
    #[test]
    fn when_nothing_waits_any_more_every_share_is_whole_at_once() {
        let mut service = Service::new(1000);
        for _ in 0..400 {
            service.gave(Class::P256, 75, |_| false);
            service.gave(Class::Rsa2048, 25, |_| false);
        }
        assert!(service.share(Class::Rsa2048) < 0.3);
        service.gave(Class::P256, 1, |_| true);
        assert!(service.share(Class::Rsa2048) > 0.99);
    }
}
