//! What waits, by class and within a class by client, and whose turn it is.
//!
//! ```text
//!  class     round of the clients that wait        their jobs, first in first out
//!  P-256     edge-2 -> edge-7 -> ...               edge-2: [] [] []   edge-7: []
//!  RSA-2048  edge-1 -> edge-2 -> ...               edge-1: [] [] [] [] [] [] [] [] ...
//! ```
//!
//! Within a class, deficit round robin (Shreedhar and Varghese, SIGCOMM 1995): the client at the
//! front of the round gets credit for one job of that class, times its weight; jobs are paid from
//! it by what they cost in nanoseconds of work; when it no longer pays for the next, the client goes
//! to the back. A client that leaves
//! nothing waiting leaves the round and its credit, so a client is remembered exactly as long as
//! a job of its waits: whoever is removed by a reload leaves no trace.
//!
//! Taking and putting cost the same however many clients there are, and allocate nothing: jobs and
//! clients have places in two slabs, and a hash table with chains through the second finds a
//! client's.

use std::time::Instant;

use accel::Class;

use super::slab::{NIL, Slab};

/// For whom a job is done: the unit of fairness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// Tells clients apart. Whoever is not known shares a number with all who are not.
    pub number: u64,
    /// Its share, relative to those of the others; 0 counts as 1.
    pub weight: u32,
}

/// A job that left its queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry<T> {
    pub(super) item: T,
    /// When it came.
    pub(super) since: Instant,
    /// Past this nobody waits for it.
    pub(super) deadline: Instant,
}

/// All classes.
#[derive(Debug)]
pub(super) struct Flows<T> {
    jobs: Slab<Node<T>>,
    flows: Slab<Flow>,
    /// First of the flows whose class and client have this hash.
    buckets: Box<[u32]>,
    rounds: [Round; Class::ALL.len()],
}

#[derive(Debug)]
struct Node<T> {
    entry: Entry<T>,
    cost_ns: u64,
    next: u32,
}

/// What one client has waiting in one class.
#[derive(Debug)]
struct Flow {
    class: Class,
    client: Client,
    front: u32,
    back: u32,
    work_ns: u64,
    credit_ns: u64,
    /// Whether this visit has earned its credit.
    credited: bool,
    /// The next in the round.
    next: u32,
    /// The next with the same hash.
    chained: u32,
}

/// What waits in one class.
#[derive(Debug, Clone, Copy)]
struct Round {
    /// What a visit earns: the most that a job costs, so that each visit pays for one.
    quantum_ns: u64,
    front: u32,
    back: u32,
    jobs: usize,
    work_ns: u64,
    weight: u64,
}

/// The part of one client in what waits in a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// Work that the client has waiting there.
    pub(super) work_ns: u64,
    /// Its weight.
    pub(super) weight: u64,
    /// The weights of all clients that wait there, and its own.
    pub(super) of: u64,
}

impl<T> Flows<T> {
    /// Queues for at most `jobs` jobs in all. No job of a class costs more than `job_ns_max` says.
    pub(super) fn new(jobs: usize, job_ns_max: impl Fn(Class) -> u64) -> Self {
        Self {
            jobs: Slab::new(jobs),
            flows: Slab::new(jobs),
            buckets: vec![NIL; jobs.max(1).next_power_of_two()].into_boxed_slice(),
            rounds: Class::ALL.map(|class| Round {
                quantum_ns: job_ns_max(class).max(1),
                front: NIL,
                back: NIL,
                jobs: 0,
                work_ns: 0,
                weight: 0,
            }),
        }
    }

    /// Puts a job that costs `cost_ns` behind the others of its client.
    ///
    /// # Errors
    ///
    /// Gives it back when every place is taken.
    pub(super) fn push(
        &mut self,
        class: Class,
        client: Client,
        cost_ns: u64,
        entry: Entry<T>,
    ) -> Result<(), T> {
        let cost_ns = cost_ns.clamp(1, self.rounds[class.index()].quantum_ns);
        let next = NIL;
        let node = Node {
            entry,
            cost_ns,
            next,
        };
        let job = self.jobs.insert(node).map_err(|node| node.entry.item)?;
        let known = self.find(class, client.number);
        let Some(name) = known.or_else(|| self.begin(class, client)) else {
            // As many flows as jobs fit, and each flow has a job: this is not reached.
            return self
                .jobs
                .remove(job)
                .map_or(Ok(()), |node| Err(node.entry.item));
        };
        let mut last = NIL;
        if let Some(flow) = self.flows.get_mut(name) {
            last = std::mem::replace(&mut flow.back, job);
            if last == NIL {
                flow.front = job;
            }
            flow.work_ns += cost_ns;
        }
        if let Some(last) = self.jobs.get_mut(last) {
            last.next = job;
        }
        let round = &mut self.rounds[class.index()];
        round.jobs += 1;
        round.work_ns += cost_ns;
        Ok(())
    }

    /// Takes the job whose turn it is in a class.
    pub(super) fn pop(&mut self, class: Class) -> Option<Entry<T>> {
        loop {
            let round = self.rounds[class.index()];
            let flow = self.flows.get_mut(round.front)?;
            let cost_ns = self.jobs.get(flow.front)?.cost_ns;
            if !flow.credited {
                flow.credited = true;
                let weight = u64::from(flow.client.weight.max(1));
                flow.credit_ns += round.quantum_ns.saturating_mul(weight);
            }
            if let Some(rest) = flow.credit_ns.checked_sub(cost_ns) {
                flow.credit_ns = rest;
                return self.unlink(class);
            }
            flow.credited = false;
            self.rotate(class);
        }
    }

    /// When the job came that [`Self::pop`] would look at first.
    pub(super) fn next_since(&self, class: Class) -> Option<Instant> {
        let flow = self.flows.get(self.rounds[class.index()].front)?;
        Some(self.jobs.get(flow.front)?.entry.since)
    }

    /// Jobs that wait in a class.
    pub(super) fn len(&self, class: Class) -> usize {
        self.rounds[class.index()].jobs
    }

    /// Work that waits in a class.
    pub(super) fn work_ns(&self, class: Class) -> u64 {
        self.rounds[class.index()].work_ns
    }

    /// The part of `client` in it.
    pub(super) fn share(&self, class: Class, client: Client) -> Share {
        let weights = self.rounds[class.index()].weight;
        let flow = self
            .find(class, client.number)
            .and_then(|name| self.flows.get(name));
        match flow {
            Some(flow) => Share {
                work_ns: flow.work_ns,
                weight: u64::from(flow.client.weight.max(1)),
                of: weights,
            },
            None => Share {
                work_ns: 0,
                weight: u64::from(client.weight.max(1)),
                of: weights + u64::from(client.weight.max(1)),
            },
        }
    }

    /// Takes the first job of the client at the front, which leaves when it has no other.
    fn unlink(&mut self, class: Class) -> Option<Entry<T>> {
        let name = self.rounds[class.index()].front;
        let flow = self.flows.get_mut(name)?;
        let node = self.jobs.remove(flow.front)?;
        flow.front = node.next;
        flow.work_ns -= node.cost_ns;
        let left = flow.front == NIL;
        let round = &mut self.rounds[class.index()];
        round.jobs -= 1;
        round.work_ns -= node.cost_ns;
        if left {
            self.end(class, name);
        }
        Some(node.entry)
    }

    /// Moves the client at the front to the back.
    fn rotate(&mut self, class: Class) {
        let round = &mut self.rounds[class.index()];
        let name = round.front;
        if name == round.back {
            return;
        }
        if let Some(flow) = self.flows.get_mut(name) {
            round.front = std::mem::replace(&mut flow.next, NIL);
        }
        if let Some(back) = self.flows.get_mut(round.back) {
            back.next = name;
        }
        round.back = name;
    }

    /// Lets a client into the round of a class, at the back.
    fn begin(&mut self, class: Class, client: Client) -> Option<u32> {
        let bucket = self.bucket(class, client.number);
        let flow = Flow {
            class,
            client,
            front: NIL,
            back: NIL,
            work_ns: 0,
            credit_ns: 0,
            credited: false,
            next: NIL,
            chained: self.buckets[bucket],
        };
        let name = self.flows.insert(flow).ok()?;
        self.buckets[bucket] = name;
        let round = &mut self.rounds[class.index()];
        round.weight += u64::from(client.weight.max(1));
        let last = std::mem::replace(&mut round.back, name);
        if last == NIL {
            round.front = name;
        }
        if let Some(last) = self.flows.get_mut(last) {
            last.next = name;
        }
        Some(name)
    }

    /// Forgets the client at the front of a round.
    fn end(&mut self, class: Class, name: u32) {
        let Some(flow) = self.flows.remove(name) else {
            return;
        };
        let round = &mut self.rounds[class.index()];
        round.weight -= u64::from(flow.client.weight.max(1));
        round.front = flow.next;
        if round.front == NIL {
            round.back = NIL;
        }
        let bucket = self.bucket(class, flow.client.number);
        if self.buckets[bucket] == name {
            self.buckets[bucket] = flow.chained;
            return;
        }
        let mut at = self.buckets[bucket];
        while let Some(other) = self.flows.get_mut(at) {
            if other.chained == name {
                other.chained = flow.chained;
                return;
            }
            at = other.chained;
        }
    }

    fn find(&self, class: Class, client: u64) -> Option<u32> {
        let mut at = self.buckets[self.bucket(class, client)];
        while let Some(flow) = self.flows.get(at) {
            if flow.client.number == client && flow.class == class {
                return Some(at);
            }
            at = flow.chained;
        }
        None
    }

    /// Multiplicative hashing (Knuth, The Art of Computer Programming 3, section 6.4). Numbers of
    /// clients are ours, not the clients': nobody can aim at one bucket.
    fn bucket(&self, class: Class, client: u64) -> usize {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let mixed = (client.rotate_left(8) ^ class.index() as u64).wrapping_mul(GOLDEN);
        (mixed >> 32) as usize & (self.buckets.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const JOB_NS: u64 = 1000;

    fn client(number: u64) -> Client {
        Client { number, weight: 1 }
    }

    fn push<T>(flows: &mut Flows<T>, class: Class, client: Client, cost_ns: u64, item: T) {
        let since = crate::clock::now();
        let entry = Entry {
            item,
            since,
            deadline: since,
        };
        assert!(flows.push(class, client, cost_ns, entry).is_ok());
    }

    #[test]
    fn clients_take_turns_and_each_is_served_in_order() {
        let mut flows = Flows::new(100, |_| JOB_NS);
        for job in 0..5 {
            push(&mut flows, Class::P256, client(1), JOB_NS, (1, job));
        }
        push(&mut flows, Class::P256, client(2), JOB_NS, (2, 0));
        push(&mut flows, Class::P256, client(3), JOB_NS, (3, 0));
        push(&mut flows, Class::Rsa2048, client(2), JOB_NS, (2, 9));
        let order: Vec<_> = std::iter::from_fn(|| flows.pop(Class::P256))
            .map(|entry| entry.item)
            .collect();
        assert_eq!(
            order,
            [(1, 0), (2, 0), (3, 0), (1, 1), (1, 2), (1, 3), (1, 4)]
        );
        assert_eq!((flows.len(Class::P256), flows.len(Class::Rsa2048)), (0, 1));
    }

    /// Weights and costs share the work as they say, in whatever pieces it comes.
    #[test]
    fn work_is_shared_by_weight() {
        let mut flows = Flows::new(10_000, |_| JOB_NS);
        let clients = [(1, 1, JOB_NS), (2, 3, JOB_NS), (3, 1, JOB_NS / 4)];
        for (number, weight, cost_ns) in clients {
            for _ in 0..3000 {
                push(
                    &mut flows,
                    Class::Rsa2048,
                    Client { number, weight },
                    cost_ns,
                    number,
                );
            }
        }
        let mut served: HashMap<u64, u64> = HashMap::new();
        let mut work = 0;
        while work < 1000 * JOB_NS {
            let number = flows.pop(Class::Rsa2048).expect("plenty waits").item;
            let cost_ns = if number == 3 { JOB_NS / 4 } else { JOB_NS };
            *served.entry(number).or_default() += cost_ns;
            work += cost_ns;
        }
        for (number, weight, _) in clients {
            let share = served[&number] * 100 / work;
            let due = u64::from(weight) * 100 / 5;
            assert!(
                share.abs_diff(due) <= 1,
                "client {number} got {share} % of {due} %"
            );
        }
    }

    #[test]
    fn a_client_is_forgotten_with_its_last_job() {
        let mut flows = Flows::new(64, |_| JOB_NS);
        for generation in 0..10_000 {
            push(&mut flows, Class::P384, client(generation), JOB_NS, ());
            push(&mut flows, Class::P384, client(generation + 1), JOB_NS, ());
            assert_eq!(flows.flows.len(), 2);
            assert!(flows.pop(Class::P384).is_some() && flows.pop(Class::P384).is_some());
            assert!(flows.pop(Class::P384).is_none());
        }
        assert_eq!(flows.flows.len(), 0);
        assert!(flows.buckets.iter().all(|bucket| *bucket == NIL));
        assert_eq!(flows.rounds[Class::P384.index()].weight, 0);
    }

    /// Against a model that is plainly right: nothing is lost or repeated, each client's jobs stay
    /// in order, and the sums are those of what waits.
    #[test]
    fn nothing_is_lost_or_repeated() {
        use proptest::prelude::*;
        let step = (0..3_usize, 0..4_u64, 1..=JOB_NS, any::<bool>());
        proptest!(|(steps in prop::collection::vec(step, 1..400))| {
            let classes = [Class::P256, Class::Rsa2048, Class::RsaOther];
            let mut flows = Flows::new(64, |_| JOB_NS);
            let mut model: Vec<(Class, u64, u64, usize)> = Vec::new();
            for (number, (class, who, cost_ns, put)) in steps.into_iter().enumerate() {
                let class = classes[class];
                if put {
                    let since = crate::clock::now();
                    let entry = Entry { item: (who, number), since, deadline: since };
                    let pushed = flows.push(class, client(who), cost_ns, entry);
                    prop_assert_eq!(pushed.is_ok(), model.len() < 64);
                    if pushed.is_ok() {
                        model.push((class, who, cost_ns, number));
                    }
                } else if let Some(entry) = flows.pop(class) {
                    let first = model.iter().position(|job| job.0 == class && job.1 == entry.item.0);
                    let job = model.remove(first.expect("it was put in"));
                    prop_assert_eq!(entry.item, (job.1, job.3));
                } else {
                    prop_assert!(model.iter().all(|job| job.0 != class));
                }
                for class in classes {
                    let waiting = model.iter().filter(|job| job.0 == class);
                    prop_assert_eq!(flows.len(class), waiting.clone().count());
                    prop_assert_eq!(flows.work_ns(class), waiting.map(|job| job.2).sum::<u64>());
                }
            }
        });
    }
}
