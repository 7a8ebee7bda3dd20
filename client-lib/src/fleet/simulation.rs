//! The fleet on a clock of its own: servers that answer after a time of theirs, a load that arrives
//! at times of its own, and no waiting. A run of ten seconds takes milliseconds and is the same each
//! time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyless_protocol::ErrorCode;

use super::{Attempts, Fleet, Place, Random, ServerId, Step};
use crate::error::Error;
use crate::observe::{Event, Observer};

const MS: Duration = Duration::from_millis(1);
const US: Duration = Duration::from_micros(1);
const LIMIT: Duration = Duration::from_secs(2);

/// How a simulated server answers what reaches it now.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    /// As many at a time as it is large, each taking about this long.
    Serves(Duration),
    /// It answers nothing.
    Stalls,
    /// It refuses, at once.
    Refuses(ErrorCode),
    /// It asks to be left alone for a while.
    Busy(Duration),
    /// There is no connection.
    Gone,
}

struct Server {
    id: ServerId,
    mood: Mood,
    /// How many it serves at a time.
    size: u32,
    free_at: Instant,
    served: u32,
}

enum Happening {
    Arrival {
        repeatable: bool,
    },
    Answer {
        call: u64,
        server: ServerId,
        result: Result<Vec<u8>, Error>,
    },
    Timer {
        call: u64,
    },
    Mood {
        server: usize,
        mood: Mood,
    },
}

#[derive(Default)]
struct Counts(std::sync::Mutex<HashMap<String, u32>>);

impl Observer for Counts {
    fn observe(&self, event: Event<'_>) {
        let text = format!("{event:?}");
        let name = text.split([' ', '{']).next().unwrap().to_owned();
        *self.0.lock().unwrap().entry(name).or_default() += 1;
    }
}

struct World {
    start: Instant,
    now: Instant,
    random: Random,
    fleet: Fleet,
    counts: Arc<Counts>,
    servers: Vec<Server>,
    calls: HashMap<u64, (Attempts, Instant)>,
    plan: BTreeMap<(Instant, u64), Happening>,
    next: u64,
    latencies: Vec<Duration>,
    failures: Vec<Error>,
    sends: u32,
}

impl World {
    fn new(seed: u64, hedging: bool, servers: &[(Mood, u16)]) -> Self {
        let place = |(mood, tier): &(Mood, u16)| (*mood, Place::of_tier(*tier));
        let servers: Vec<_> = servers.iter().map(place).collect();
        Self::placed(seed, hedging, &servers)
    }

    fn placed(seed: u64, hedging: bool, servers: &[(Mood, Place)]) -> Self {
        let start = Instant::now();
        let counts = Arc::new(Counts::default());
        let observer = Arc::clone(&counts);
        let mut fleet = Fleet::seeded(seed, hedging, observer, start);
        let servers = servers
            .iter()
            .map(|(mood, place)| {
                let id = fleet.join("simulated:2407", *place, start);
                if *mood != Mood::Gone {
                    fleet.connected(id, false, start);
                }
                let mood = *mood;
                Server {
                    id,
                    mood,
                    size: 1,
                    free_at: start,
                    served: 0,
                }
            })
            .collect();
        Self {
            start,
            now: start,
            random: Random::new(seed),
            fleet,
            counts,
            servers,
            calls: HashMap::new(),
            plan: BTreeMap::new(),
            next: 0,
            latencies: Vec::new(),
            failures: Vec::new(),
            sends: 0,
        }
    }

    fn at(&mut self, at: Instant, what: Happening) {
        self.next += 1;
        self.plan.insert((at, self.next), what);
    }

    fn after(&mut self, delay: Duration, what: Happening) {
        self.at(self.start + delay, what);
    }

    /// `count` calls from `from` on, `every` so often on average.
    fn load(&mut self, from: Duration, every: Duration, count: u32, repeatable: bool) {
        for number in 0..count {
            let jitter = every * u32::try_from(self.random.below(1000)).unwrap() / 500;
            self.after(
                from + every * number + jitter,
                Happening::Arrival { repeatable },
            );
        }
    }

    fn run(&mut self) -> &mut Self {
        while let Some(((at, _), what)) = self.plan.pop_first() {
            self.now = at;
            match what {
                Happening::Arrival { repeatable } => {
                    self.next += 1;
                    let mut attempts = Attempts::new(repeatable, LIMIT, at);
                    let step = attempts.begin(&mut self.fleet, at);
                    self.calls.insert(self.next, (attempts, at));
                    self.follow(self.next, step);
                }
                Happening::Answer {
                    call,
                    server,
                    result,
                } => {
                    if let Some((attempts, _)) = self.calls.get_mut(&call) {
                        let step = attempts.answered(&mut self.fleet, server, result, at);
                        self.follow(call, step);
                    }
                }
                Happening::Timer { call } => self.wake(call),
                Happening::Mood { server, mood } => self.change(server, mood),
            }
        }
        assert!(self.calls.is_empty(), "every call has an outcome");
        self
    }

    fn wake(&mut self, call: u64) {
        if let Some((attempts, _)) = self.calls.get_mut(&call) {
            let step = attempts.woken(&mut self.fleet, self.now);
            self.follow(call, step);
        }
    }

    fn change(&mut self, index: usize, mood: Mood) {
        let now = self.now;
        let server = &mut self.servers[index];
        let (before, id) = (server.mood, server.id);
        server.mood = mood;
        server.free_at = now;
        if mood == Mood::Gone {
            let error = Error::lost("a simulation", "killed");
            self.fleet.lost(id, &error, now);
            let mut calls: Vec<u64> = self.calls.keys().copied().collect();
            calls.sort_unstable();
            for call in calls {
                let Some((attempts, _)) = self.calls.get_mut(&call) else {
                    continue;
                };
                let step = attempts.answered(&mut self.fleet, id, Err(error.clone()), now);
                self.follow(call, step);
            }
        } else if before == Mood::Gone {
            self.fleet.connected(id, false, now);
        }
        let mut calls: Vec<u64> = self.calls.keys().copied().collect();
        calls.sort_unstable();
        calls.retain(|call| self.calls[call].0.is_parked());
        calls.into_iter().for_each(|call| self.wake(call));
    }

    fn follow(&mut self, call: u64, step: Step) {
        let now = self.now;
        match step {
            Step::Send(id) => {
                self.sends += 1;
                let noise = u32::try_from(self.random.below(1000)).unwrap();
                let server = self.servers.iter_mut().find(|s| s.id == id).unwrap();
                server.served += 1;
                let (at, result) = match server.mood {
                    Mood::Serves(mean) => {
                        // Between half and one and a half of the mean, and a tenth that is slow.
                        let mut takes = mean / 2 + mean * noise / 1000;
                        if noise.is_multiple_of(50) {
                            takes *= 4;
                        }
                        let begins = server.free_at.max(now);
                        server.free_at = begins + takes / server.size;
                        (begins + takes, Ok(vec![1]))
                    }
                    Mood::Stalls => (now + LIMIT * 2, Ok(vec![1])),
                    Mood::Refuses(code) => (now + 50 * US, Err(Error::Refused(code))),
                    Mood::Busy(wait) => {
                        let retry_after = Some(wait);
                        (now + 50 * US, Err(Error::Busy { retry_after }))
                    }
                    Mood::Gone => (now, Err(Error::lost("a simulation", "gone"))),
                };
                self.at(
                    at,
                    Happening::Answer {
                        call,
                        server: id,
                        result,
                    },
                );
            }
            Step::Wait => {}
            Step::Done(outcome) => {
                let (_, since) = self.calls.remove(&call).unwrap();
                match outcome {
                    Ok(_) => self.latencies.push(now - since),
                    Err(error) => self.failures.push(error),
                }
                return;
            }
        }
        let wake = self.calls[&call].0.wake_at();
        self.at(wake.max(now + US), Happening::Timer { call });
    }

    fn count(&self, event: &str) -> u32 {
        self.counts
            .0
            .lock()
            .unwrap()
            .get(event)
            .copied()
            .unwrap_or(0)
    }

    fn percentile(&self, permille: usize) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        sorted[(sorted.len() - 1) * permille / 1000]
    }

    /// Each server's share of what was sent, in percent.
    fn shares(&self) -> Vec<f64> {
        let share = |server: &Server| 100.0 * f64::from(server.served) / f64::from(self.sends);
        self.servers.iter().map(share).collect()
    }
}

#[test]
fn equal_servers_get_equal_shares_at_every_load() {
    for seed in 1..4 {
        for every in [100 * US, 200 * US, MS, 5 * MS] {
            let equal = [(Mood::Serves(200 * US), 0); 3];
            let mut world = World::new(seed, true, &equal);
            world.load(Duration::ZERO, every, 20_000, true);
            world.run();
            assert!(world.failures.is_empty());
            for share in world.shares() {
                let off = (share / (100.0 / 3.0) - 1.0).abs();
                assert!(off < 0.1, "every {every:?}: {:?}", world.shares());
            }
        }
    }
}

#[test]
fn a_slower_server_gets_what_it_can_carry() {
    for seed in 1..4 {
        // 5,000, 5,000 and 1,250 calls a second at most; 8,000 come.
        let servers = [200 * US, 200 * US, 800 * US].map(|mean| (Mood::Serves(mean), 0));
        let mut world = World::new(seed, false, &servers);
        world.load(Duration::ZERO, 125 * US, 80_000, true);
        world.run();
        let shares = world.shares();
        assert!(shares[2] < 1250.0 / 80.0, "{shares:?}");
        assert!(shares[2] > 2.0, "it is not forgotten: {shares:?}");
        assert!((shares[0] / shares[1] - 1.0).abs() < 0.1, "{shares:?}");
        assert!(
            world.percentile(990) < 20 * MS,
            "{:?}",
            world.percentile(990)
        );
    }
}

/// Servers of one service, each as large as its weight says.
fn weighed(weights: &[u16], every: Duration) -> World {
    let records: Vec<(u16, u16)> = weights.iter().map(|weight| (0, *weight)).collect();
    let good = Mood::Serves(200 * US);
    let servers = Place::of_service(&records)
        .into_iter()
        .map(|place| (good, place));
    let mut world = World::placed(7, true, &servers.collect::<Vec<_>>());
    for (server, weight) in world.servers.iter_mut().zip(weights) {
        server.size = u32::from(*weight).max(1);
    }
    world.load(Duration::ZERO, every, 40_000, true);
    world
}

#[test]
fn shares_follow_weights() {
    for weights in [
        &[3, 1][..],
        &[1, 2, 4],
        &[50, 30, 20],
        &[1000, 1000, 500, 10],
        &[9, 1, 0],
    ] {
        for every in [100 * US, 300 * US, MS, 5 * MS] {
            let mut world = weighed(weights, every);
            world.run();
            assert!(world.failures.is_empty());
            let sum: u16 = weights.iter().sum();
            for (share, weight) in world.shares().into_iter().zip(weights) {
                let wanted = 100.0 * f64::from(*weight) / f64::from(sum);
                let off = (share - wanted).abs();
                let shares = world.shares();
                assert!(
                    off < wanted / 10.0 + 0.5,
                    "every {every:?}, {weights:?}: {shares:?}"
                );
            }
        }
    }
}

/// Weight is a wish, not an order: what a server cannot carry goes to others, and back when it can.
#[test]
fn a_heavy_server_that_does_badly_loses_its_share() {
    let mut world = weighed(&[8, 1, 1], MS);
    world.servers[0].size = 1;
    let second = Duration::from_secs(1);
    let mood = |mood| Happening::Mood { server: 0, mood };
    world.after(10 * second, mood(Mood::Serves(20 * MS)));
    world.after(30 * second, mood(Mood::Serves(200 * US)));
    world.run();
    assert!(world.failures.is_empty(), "{:?}", world.failures.first());
    // Of 40 s it has 80 of 100 for 20 s, and of the rest what it can carry: 50 of 1,000 a second.
    let share = world.shares()[0];
    assert!((35.0..45.0).contains(&share), "{share}");
    assert!(
        world.percentile(990) < 50 * MS,
        "{:?}",
        world.percentile(990)
    );
}

#[test]
fn a_higher_priority_serves_only_while_no_lower_one_can() {
    let good = Mood::Serves(200 * US);
    let places = Place::of_service(&[(10, 1), (20, 60_000), (20, 0)]);
    let servers: Vec<_> = places.into_iter().map(|place| (good, place)).collect();
    let mut world = World::placed(5, false, &servers);
    world.load(Duration::ZERO, MS, 2_000, true);
    let mood = Mood::Gone;
    world.after(Duration::from_secs(1), Happening::Mood { server: 0, mood });
    world.run();
    assert!(world.failures.is_empty());
    let served = [0, 1, 2].map(|server| world.servers[server].served);
    assert!((950..=1050).contains(&served[0]), "{served:?}");
    assert!(served[1] > 20 * served[2], "{served:?}");
}

#[test]
fn one_killed_one_stalled_and_nobody_notices() {
    let (mut hedged, mut retried) = (0, 0);
    for seed in 1..7 {
        let mut world = World::new(seed, true, &[(Mood::Serves(200 * US), 0); 3]);
        world.load(Duration::ZERO, 250 * US, 40_000, true);
        let second = Duration::from_secs(1);
        let change = |server, mood| Happening::Mood { server, mood };
        world.after(2 * second, change(0, Mood::Gone));
        world.after(3 * second, change(1, Mood::Stalls));
        world.after(8 * second, change(1, Mood::Serves(200 * US)));
        world.after(8 * second + 500 * MS, change(0, Mood::Serves(200 * US)));
        world.run();
        assert!(world.failures.is_empty(), "{:?}", world.failures.first());
        assert!(
            world.percentile(999) < 50 * MS,
            "{:?}",
            world.percentile(999)
        );
        assert!(world.sends < 44_000, "within the budget: {}", world.sends);
        hedged += world.count("Hedged");
        retried += world.count("Retried");
    }
    assert!(
        hedged > 0 && retried > 0,
        "{hedged} hedged, {retried} retried"
    );
}

#[test]
fn a_failing_server_is_ejected_and_comes_back() {
    let broken = Mood::Refuses(ErrorCode::Internal);
    let good = Mood::Serves(200 * US);
    let mut world = World::new(3, true, &[(broken, 0), (good, 0)]);
    world.load(Duration::ZERO, MS, 20_000, true);
    let mood = Mood::Serves(200 * US);
    world.after(Duration::from_secs(2), Happening::Mood { server: 0, mood });
    world.run();
    assert!(world.failures.is_empty(), "{:?}", world.failures.first());
    assert!(world.count("Ejected") >= 1);
    assert!(world.count("Failed") < 30, "{}", world.count("Failed"));
    let served = world.servers[0].served;
    assert!(served > 6_000, "it has its share again: {served}");
}

#[test]
fn repeated_requests_keep_to_the_budget_whatever_happens() {
    // All servers are broken: without a budget every call would be asked four times.
    let broken = Mood::Refuses(ErrorCode::Internal);
    let mut world = World::new(5, true, &[(broken, 0); 3]);
    world.load(Duration::ZERO, MS, 20_000, true);
    world.run();
    assert_eq!(world.failures.len(), 20_000);
    // A tenth, what was saved up, and ten a second.
    assert!(world.sends < 20_000 + 2_000 + 256 + 250, "{}", world.sends);
    assert!(world.count("BudgetSpent") > 0);
}

#[test]
fn decryptions_are_sent_once() {
    let mut world = World::new(5, true, &[(Mood::Stalls, 0), (Mood::Serves(200 * US), 0)]);
    world.load(Duration::ZERO, 10 * MS, 500, false);
    let gone = Happening::Mood {
        server: 1,
        mood: Mood::Gone,
    };
    world.after(Duration::from_secs(3), gone);
    world.run();
    assert!(!world.failures.is_empty(), "what met the stalled server");
    assert_eq!(
        world.sends as usize,
        world.failures.len() + world.latencies.len()
    );
    assert_eq!(world.count("Hedged") + world.count("Retried"), 0);
}

#[test]
fn refusals_are_final_on_the_first_server() {
    for code in [
        ErrorCode::Denied,
        ErrorCode::KeyDisabled,
        ErrorCode::Sealed,
        ErrorCode::KeyNotFound,
        ErrorCode::CryptoFailure,
    ] {
        let mut world = World::new(5, true, &[(Mood::Refuses(code), 0); 2]);
        world.load(Duration::ZERO, MS, 100, true);
        world.run();
        assert_eq!((world.sends, world.failures.len()), (100, 100));
        assert_eq!(world.count("Ejected"), 0, "a refusal is an answer");
    }
}

#[test]
fn the_own_zone_is_preferred_while_it_can_be_used() {
    let good = Mood::Serves(200 * US);
    let mut world = World::new(5, false, &[(good, 0), (good, 0), (good, 1)]);
    world.load(Duration::ZERO, MS, 3_000, true);
    world.after(
        Duration::from_secs(1),
        Happening::Mood {
            server: 0,
            mood: Mood::Gone,
        },
    );
    world.after(
        Duration::from_secs(2),
        Happening::Mood {
            server: 1,
            mood: Mood::Gone,
        },
    );
    world.run();
    assert!(world.failures.is_empty());
    let distant = world.servers[2].served;
    assert!(
        (950..=1_010).contains(&distant),
        "only in the last second: {distant}"
    );
}

#[test]
fn busy_servers_are_waited_for_within_the_deadline() {
    let busy = Mood::Busy(200 * MS);
    let mut world = World::new(5, true, &[(busy, 0); 2]);
    world.load(Duration::ZERO, MS, 10, true);
    let mood = Mood::Serves(200 * US);
    for server in 0..2 {
        world.after(150 * MS, Happening::Mood { server, mood });
    }
    world.run();
    assert!(world.failures.is_empty(), "{:?}", world.failures.first());
    assert!(
        world.percentile(0) >= 150 * MS,
        "left alone for as long as they asked"
    );
}

#[test]
fn a_server_that_comes_back_starts_slowly() {
    let good = Mood::Serves(200 * US);
    let mut world = World::new(5, false, &[(good, 0), (good, 0)]);
    world.load(Duration::ZERO, MS, 4_000, true);
    world.after(
        Duration::ZERO,
        Happening::Mood {
            server: 0,
            mood: Mood::Gone,
        },
    );
    world.after(
        Duration::from_secs(3),
        Happening::Mood {
            server: 0,
            mood: good,
        },
    );
    world.run();
    let served = world.servers[0].served;
    assert!(
        (1..400).contains(&served),
        "less than its share of a second: {served}"
    );
}

#[test]
fn without_any_server_the_reason_is_told_at_once() {
    let mut world = World::new(5, true, &[(Mood::Gone, 0); 2]);
    world.load(Duration::ZERO, MS, 10, true);
    for server in 0..2 {
        world.after(
            100 * MS,
            Happening::Mood {
                server,
                mood: Mood::Gone,
            },
        );
    }
    world.run();
    assert_eq!(world.failures.len(), 10);
    assert!(
        world
            .failures
            .iter()
            .all(|error| matches!(error, Error::Network(_)))
    );
    assert!(world.now - world.start <= LIMIT + 20 * MS);
}
