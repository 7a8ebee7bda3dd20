//! One grant, ready to be asked.

use std::sync::Arc;
use std::time::Duration;

use super::ask::Ask;
use super::meter::{Count, Meter};
use super::rights::Right;
use super::unmet::Unmet;
use super::window::Moment;
use crate::config::Grant;
use crate::limits;

/// A grant of the configuration, and how much of its limits is used.
#[derive(Debug)]
pub struct CompiledGrant {
    grant: Grant,
    meter: Arc<Meter>,
}

impl CompiledGrant {
    pub(super) fn new(grant: Grant) -> Self {
        Self {
            grant,
            meter: Arc::default(),
        }
    }

    /// As it is written.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// How much of its limits is used.
    #[must_use]
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Goes on counting where another grant, of before a reload, has come to.
    pub(crate) fn go_on(&mut self, meter: Arc<Meter>) {
        self.meter = meter;
    }

    /// Whether it depends on the time of day.
    pub(super) fn needs_time(&self) -> bool {
        let Grant {
            expires,
            window,
            limits,
            ..
        } = &self.grant;
        expires.is_some() || !window.is_always() || limits.daily.is_some()
    }

    /// Whether it has not ended.
    pub(super) fn is_in_force(&self, at: Moment) -> bool {
        self.grant
            .expires
            .is_none_or(|last_day| at.date <= last_day)
    }

    /// The longest life of a delegated credential.
    pub(super) fn credential_lifetime(&self) -> Duration {
        (self.grant.max_credential_lifetime).unwrap_or(limits::CREDENTIAL_LIFETIME)
    }

    /// Whether it covers what is asked, which is about a key that it names.
    ///
    /// # Errors
    ///
    /// The first thing that does not hold. Limits come last, so that only what is allowed counts.
    pub(super) fn check(&self, ask: &Ask<'_>, at: Moment, count: Count) -> Result<(), Unmet> {
        let grant = &self.grant;
        if !grant.allow.contains(ask.right) {
            return Err(Unmet::Allow);
        }
        if !self.is_in_force(at) {
            return Err(Unmet::Expires);
        }
        let from_here = |prefix: &super::Prefix| prefix.contains(ask.address);
        if !grant.sources.is_empty() && !grant.sources.iter().any(from_here) {
            return Err(Unmet::Source);
        }
        if let Some(unmet) = grant.window.unmet(at) {
            return Err(unmet);
        }
        if let Some(unmet) = grant.conditions.unmet(ask.facts.as_ref()) {
            return Err(unmet);
        }
        if ask
            .lifetime
            .is_some_and(|asked| asked > self.credential_lifetime())
        {
            return Err(Unmet::Lifetime);
        }
        if grant.limits.is_none() {
            return Ok(());
        }
        self.meter.take(&grant.limits, ask.now, at.day, count)
    }

    /// Whether it gives a right at all.
    pub(super) fn gives(&self, right: Right) -> bool {
        self.grant.allow.contains(right)
    }
}
