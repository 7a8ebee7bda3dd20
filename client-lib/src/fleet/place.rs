//! Where a server stands among the others of its client, by configuration or by its SRV record.

/// What servers weigh whose weights nobody gave, and on average those of one priority of a service.
const EVEN: u32 = 1000;

/// The tier and the weight of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Servers of a lower tier are preferred while one of them can be used: the own zone before
    /// others, a lower SRV priority before a higher one.
    pub(crate) tier: u16,
    /// Its share of the calls of its tier, relative to the others' while all are equally fast. At least 1.
    pub(crate) weight: u32,
}

impl Place {
    /// In this tier, with the same share as others.
    pub(crate) const fn of_tier(tier: u16) -> Self {
        Self { tier, weight: EVEN }
    }

    /// The places of SRV records by priority and weight (RFC 2782). The weights of one priority are put in
    /// relation to their mean, so that a server beside them weighs what they do on average. One of weight 0
    /// beside others is drawn very rarely; if all have weight 0, they are equal.
    pub(crate) fn of_service(records: &[(u16, u16)]) -> Vec<Self> {
        let place = |&(priority, weight): &(u16, u16)| {
            let group = records.iter().filter(|(other, _)| *other == priority);
            let (count, sum) = group.fold((0_u64, 0_u64), |(count, sum), (_, weight)| {
                (count + 1, sum + u64::from(*weight))
            });
            let relative = (u64::from(weight) * u64::from(EVEN) * count).checked_div(sum);
            let weight = relative.map_or(EVEN, |weight| u32::try_from(weight).unwrap_or(u32::MAX));
            Self {
                tier: priority,
                weight: weight.max(1),
            }
        };
        records.iter().map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(records: &[(u16, u16)]) -> Vec<u32> {
        let places = Place::of_service(records);
        let tiers = places.iter().zip(records);
        assert!(
            tiers
                .into_iter()
                .all(|(place, record)| place.tier == record.0)
        );
        places.iter().map(|place| place.weight).collect()
    }

    #[test]
    fn weights_are_relative_to_those_of_the_same_priority() {
        assert_eq!(weights(&[(0, 3), (0, 1)]), [1500, 500]);
        assert_eq!(
            weights(&[(0, 3), (0, 1), (7, 60), (7, 60)]),
            [1500, 500, 1000, 1000]
        );
        assert_eq!(weights(&[(0, 65535); 64]), [1000; 64]);
        assert_eq!(weights(&[(0, 5)]), [Place::of_tier(0).weight]);
    }

    #[test]
    fn weight_0_is_rare_beside_others_and_equal_among_itself() {
        assert_eq!(
            weights(&[(0, 0), (0, 10), (1, 0), (1, 0)]),
            [1, 2000, 1000, 1000]
        );
        assert_eq!(weights(&[(0, 65535), (0, 1)]), [1999, 1]);
    }
}
