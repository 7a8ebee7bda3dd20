//! Which connections have something to do.

use std::collections::VecDeque;

/// A list of links without repetition.
#[derive(Debug)]
pub(super) struct Work {
    list: VecDeque<usize>,
    listed: Vec<bool>,
}

impl Work {
    pub(super) fn new(links: usize) -> Self {
        Self {
            list: VecDeque::with_capacity(links),
            listed: vec![false; links],
        }
    }

    pub(super) fn add(&mut self, link: usize) {
        if let Some(listed) = self.listed.get_mut(link)
            && !std::mem::replace(listed, true)
        {
            self.list.push_back(link);
        }
    }

    /// Takes one off, first in first out.
    pub(super) fn pop(&mut self) -> Option<usize> {
        let link = self.list.pop_front()?;
        if let Some(listed) = self.listed.get_mut(link) {
            *listed = false;
        }
        Some(link)
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}
