//! Percentiles out of the buckets of a histogram.
//!
//! Within a bucket, values are taken to be spread evenly: the answer is as exact as the buckets are narrow. What lies beyond the last finite
//! bound is told as that bound.

/// The value below which `share` (0 to 1) of what was counted lies. `buckets` are upper bounds in rising order, each with how many
/// were at most that; the last bound may be infinite. `None` if nothing was counted.
pub fn percentile(buckets: &[(f64, f64)], share: f64) -> Option<f64> {
    let all = buckets.iter().map(|(_, count)| *count).fold(0.0, f64::max);
    if all <= 0.0 {
        return None;
    }
    let rank = share.clamp(0.0, 1.0) * all;
    let (mut below, mut counted) = (0.0, 0.0);
    for (bound, count) in buckets {
        // Buckets of processes that count differently do not add up to rising numbers.
        let count = count.max(counted);
        if count >= rank && count > counted {
            if bound.is_infinite() {
                return Some(below);
            }
            return Some(below + (bound - below) * ((rank - counted) / (count - counted)).clamp(0.0, 1.0));
        }
        (below, counted) = (if bound.is_finite() { *bound } else { below }, count);
    }
    Some(below)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_lie_evenly_within_their_bucket() {
        let buckets = [(1.0, 0.0), (2.0, 50.0), (4.0, 100.0), (f64::INFINITY, 100.0)];
        assert_eq!(percentile(&buckets, 0.25), Some(1.5));
        assert_eq!(percentile(&buckets, 0.5), Some(2.0));
        assert_eq!(percentile(&buckets, 0.75), Some(3.0));
        assert_eq!(percentile(&buckets, 1.0), Some(4.0));
        // The first bucket begins at nothing.
        assert_eq!(percentile(&[(8.0, 4.0)], 0.5), Some(4.0));
    }

    #[test]
    fn beyond_the_last_bound_nothing_is_made_up_and_nothing_counted_is_nothing() {
        assert_eq!(percentile(&[(1.0, 1.0), (f64::INFINITY, 100.0)], 0.99), Some(1.0));
        assert_eq!(percentile(&[], 0.5), None);
        assert_eq!(percentile(&[(1.0, 0.0), (f64::INFINITY, 0.0)], 0.5), None);
    }

    proptest! {
        /// Against the values themselves: the answer lies in the bucket of the value at that rank.
        #[test]
        fn the_answer_lies_in_the_right_bucket(values in prop::collection::vec(0.0..50.0_f64, 1..200), share in 0.0..=1.0_f64) {
            let bounds = [0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0];
            let count = |bound: f64| values.iter().filter(|value| **value <= bound).count() as f64;
            let buckets: Vec<(f64, f64)> = bounds.iter().map(|bound| (*bound, count(*bound))).collect();
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let rank = ((share * values.len() as f64).ceil() as usize).clamp(1, values.len());
            let exact = sorted[rank - 1];
            let upper = bounds.into_iter().find(|bound| exact <= *bound).unwrap();
            let lower = bounds.into_iter().rev().find(|bound| *bound < upper).unwrap_or(0.0);
            let told = percentile(&buckets, share).unwrap();
            prop_assert!((lower..=upper).contains(&told), "{told} is not in {lower}..{upper}, which has {exact}");
        }

        #[test]
        fn whatever_was_counted_it_is_a_number(buckets in prop::collection::vec((any::<f64>(), any::<f64>()), 0..20), share in any::<f64>()) {
            _ = percentile(&buckets, share);
        }
    }
}
