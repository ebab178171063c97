//! Straight pieces: where a series without season stops following one line and follows another.
//!
//! Two stages, after Cho and Kirch (2022): moving windows of several widths propose places, and a
//! penalised least squares segmentation (optimal partitioning, Jackson et al., 2005) chooses among
//! them. A piece is a constant, or a straight line where the line is worth its second parameter. The
//! chosen places are then moved to where they fit best, and pieces that still hide a change are split.

use std::ops::Range;

/// The points to cut into pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Points<'a> {
    /// Where each point stands in time, ascending.
    pub(super) x: &'a [f64],
    /// The measurements.
    pub(super) y: &'a [f64],
    /// Which points count; the others are outliers.
    pub(super) counts: &'a [bool],
}

/// What a change costs and how long a piece is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Costs {
    /// Variance of the noise as means over many points see it.
    pub(super) variance: f64,
    /// Price of a change, in units of the variance.
    pub(super) change: f64,
    /// Price of a slope, in units of the variance.
    pub(super) slope: f64,
    /// Fewest points of a piece.
    pub(super) shortest: usize,
    /// Fewest points of a piece that may slope.
    pub(super) shortest_slope: usize,
}

/// Most rounds in which pieces are searched for further changes.
const ROUNDS: usize = 8;

/// Most times that all changes are moved before the weakest is looked at.
const MOVES: usize = 4;

/// Running sums over the points, from which the cost of any piece follows in a few operations.
#[derive(Debug)]
pub(super) struct Segmentation {
    x: Vec<f64>,
    sums: Vec<Sums>,
    costs: Costs,
}

impl Segmentation {
    pub(super) fn new(points: Points<'_>, costs: Costs) -> Self {
        let mut running = Sums::default();
        let mut sums = Vec::with_capacity(points.x.len() + 1);
        sums.push(running);
        for ((&x, &y), &counts) in points.x.iter().zip(points.y).zip(points.counts) {
            if counts {
                running.add(x, y);
            }
            sums.push(running);
        }
        Self {
            x: points.x.to_vec(),
            sums,
            costs,
        }
    }

    /// First points of all pieces but the first, ascending.
    pub(super) fn changes(&self) -> Vec<usize> {
        let mut candidates = self.candidates();
        let mut changes = self.choose(&candidates);
        for _ in 0..ROUNDS {
            self.settle(&mut changes);
            let further = self.further(&changes);
            if further.is_empty() {
                break;
            }
            candidates = changes.clone();
            candidates.extend(further);
            candidates.sort_unstable();
            candidates.dedup();
            let next = self.choose(&candidates);
            if next == changes {
                break;
            }
            changes = next;
        }
        self.settle(&mut changes);
        self.place_kinks(&mut changes);
        changes
    }

    /// Moves the changes at which two pieces meet to where lines that meet fit best: lines free to jump
    /// place a break of slope loosely.
    pub(super) fn place_kinks(&self, changes: &mut [usize]) {
        for k in 0..changes.len() {
            let (from, to) = self.around(changes, k);
            changes[k] = self.kink(from, changes[k], to).unwrap_or(changes[k]);
        }
    }

    /// How much worse one piece fits from `from` to `to` than two that meet at `at`, in units of the
    /// variance; before the price of the change.
    fn gain(&self, from: usize, at: usize, to: usize) -> f64 {
        self.cost(from, to) - self.cost(from, at) - self.cost(at, to)
    }

    /// The straight piece over `from..to`: its value at the abscissa 0 and its slope.
    pub(super) fn line(&self, from: usize, to: usize) -> (f64, f64) {
        let piece = self.sums[to].less(&self.sums[from]);
        if piece.count == 0.0 {
            return (0.0, 0.0);
        }
        let mean = piece.y / piece.count;
        let (around_mean, around_line, slope) = piece.residuals();
        if to - from >= self.costs.shortest_slope
            && around_line + self.costs.slope * self.costs.variance < around_mean
        {
            (mean - slope * piece.x / piece.count, slope)
        } else {
            (mean, 0.0)
        }
    }

    /// How probable a change is at each point, by Schwarz's approximation to the Bayes factor: at the
    /// `changes`, against one piece in place of the two beside it; at any other point, against the piece
    /// that it is in. Points too near to an end of their piece have 0. Moving one change may leave
    /// another worth a little less than its price, or a piece a little more than that of a split: the
    /// probabilities keep to the side of one half that the changes say.
    pub(super) fn probabilities(&self, changes: &[usize]) -> Vec<f64> {
        let mut probabilities = vec![0.0; self.len()];
        let probability = |gain: f64| 1.0 / (1.0 + (0.5 * (self.costs.change - gain)).exp());
        for (from, to) in spans(changes, self.len()) {
            for at in self.places(from, to) {
                probabilities[at] = probability(self.gain(from, at, to)).min(0.5_f64.next_down());
            }
        }
        for (k, &at) in changes.iter().enumerate() {
            let (from, to) = self.around(changes, k);
            probabilities[at] = probability(self.gain(from, at, to)).max(0.5);
        }
        probabilities
    }

    fn len(&self) -> usize {
        self.sums.len() - 1
    }

    /// Cost of one piece over `from..to`, in units of the variance.
    fn cost(&self, from: usize, to: usize) -> f64 {
        let piece = self.sums[to].less(&self.sums[from]);
        let (around_mean, around_line, _) = piece.residuals();
        let variance = self.costs.variance;
        // A line over a few points is as well a change that took them.
        if to - from < self.costs.shortest_slope {
            return around_mean / variance;
        }
        (around_mean / variance).min(around_line / variance + self.costs.slope)
    }

    /// Places at which windows of some width gain more by two pieces than at their neighbours.
    fn candidates(&self) -> Vec<usize> {
        let n = self.len();
        let mut found = vec![];
        let mut half = self.costs.shortest;
        let mut gains = vec![];
        while 2 * half <= n {
            gains.clear();
            gains.extend((half..=n - half).map(|at| self.gain(at - half, at, at + half)));
            let reach = (half / 2).max(1);
            for (k, &gain) in gains.iter().enumerate() {
                if gain < 0.5 * self.costs.change {
                    continue;
                }
                let around = &gains[k.saturating_sub(reach)..(k + reach + 1).min(gains.len())];
                if around.iter().all(|other| *other <= gain) {
                    found.push(half + k);
                }
            }
            half = if 4 * half > n && 2 * half < n {
                // The widest window is half the series, whatever the doublings come to.
                if half == n / 2 { n } else { n / 2 }
            } else {
                2 * half
            };
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The cheapest segmentation whose changes are among the ascending `candidates`.
    fn choose(&self, candidates: &[usize]) -> Vec<usize> {
        let n = self.len();
        let mut ends: Vec<usize> = vec![0];
        ends.extend(candidates);
        ends.push(n);
        let mut best = vec![f64::INFINITY; ends.len()];
        let mut before = vec![0; ends.len()];
        best[0] = 0.0;
        for to in 1..ends.len() {
            for from in 0..to {
                if ends[to] - ends[from] < self.costs.shortest || best[from].is_infinite() {
                    continue;
                }
                let price = if from == 0 { 0.0 } else { self.costs.change };
                let total = best[from] + price + self.cost(ends[from], ends[to]);
                if total < best[to] {
                    (best[to], before[to]) = (total, from);
                }
            }
        }
        let mut changes = vec![];
        let mut at = before[ends.len() - 1];
        while at > 0 {
            changes.push(ends[at]);
            at = before[at];
        }
        changes.reverse();
        changes
    }

    /// Moves each change to the best place between its neighbours, and drops those not worth their
    /// price, the least first.
    fn settle(&self, changes: &mut Vec<usize>) {
        // Changes whose neighbourhood is another than when they were placed.
        let mut stale = vec![true; changes.len()];
        loop {
            for _ in 0..MOVES {
                for k in 0..changes.len() {
                    if !std::mem::take(&mut stale[k]) {
                        continue;
                    }
                    let (from, to) = self.around(changes, k);
                    match self.best_split(from, to) {
                        Some((at, _)) if at != changes[k] => {
                            changes[k] = at;
                            mark_beside(&mut stale, k);
                        }
                        _ => {}
                    }
                }
            }
            let weakest = (0..changes.len())
                .map(|k| {
                    let (from, to) = self.around(changes, k);
                    (k, self.gain(from, changes[k], to))
                })
                .min_by(|a, b| a.1.total_cmp(&b.1));
            match weakest {
                Some((k, gain)) if gain < self.costs.change => {
                    mark_beside(&mut stale, k);
                    changes.remove(k);
                    stale.remove(k);
                }
                _ => return,
            }
        }
    }

    /// The best place of a further change in every piece that is worth one.
    fn further(&self, changes: &[usize]) -> Vec<usize> {
        spans(changes, self.len())
            .filter_map(|(from, to)| self.best_split(from, to))
            .filter(|(_, gain)| *gain > self.costs.change)
            .map(|(at, _)| at)
            .collect()
    }

    /// Where the pieces beside change `k` begin and end.
    fn around(&self, changes: &[usize], k: usize) -> (usize, usize) {
        let from = if k == 0 { 0 } else { changes[k - 1] };
        let to = changes.get(k + 1).copied().unwrap_or(self.len());
        (from, to)
    }

    fn best_split(&self, from: usize, to: usize) -> Option<(usize, f64)> {
        self.places(from, to)
            .map(|at| (at, self.gain(from, at, to)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Where two lines that meet fit best over `from..to`, if they fit as well as two that do not meet
    /// at `at`.
    fn kink(&self, from: usize, at: usize, to: usize) -> Option<usize> {
        if (at - from).min(to - at) < self.costs.shortest_slope {
            return None;
        }
        let whole = self.sums[to].less(&self.sums[from]);
        let apart = [(from, at), (at, to)]
            .map(|(from, to)| self.sums[to].less(&self.sums[from]).residuals().1)
            .iter()
            .sum::<f64>();
        let (place, together) = self
            .places(from, to)
            .map(|at| {
                let right = self.sums[to].less(&self.sums[at]);
                (at, whole.residual_of_kink(&right, self.x[at]))
            })
            .min_by(|a, b| a.1.total_cmp(&b.1))?;
        let as_good = together - apart <= self.costs.slope * self.costs.variance;
        (as_good && self.gain(from, place, to) >= self.costs.change).then_some(place)
    }

    /// Where the piece over `from..to` may be split.
    fn places(&self, from: usize, to: usize) -> Range<usize> {
        from + self.costs.shortest..(to + 1).saturating_sub(self.costs.shortest)
    }
}

/// The pieces of `n` points between the ascending `changes`, each from its first point to behind its
/// last.
pub(super) fn spans(changes: &[usize], n: usize) -> impl Iterator<Item = (usize, usize)> {
    let starts = std::iter::once(0).chain(changes.iter().copied());
    starts.zip(changes.iter().copied().chain(std::iter::once(n)))
}

fn mark_beside(stale: &mut [bool], k: usize) {
    if k > 0 {
        stale[k - 1] = true;
    }
    if let Some(next) = stale.get_mut(k + 1) {
        *next = true;
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    count: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
    yy: f64,
}

impl Sums {
    fn add(&mut self, x: f64, y: f64) {
        self.count += 1.0;
        self.x += x;
        self.y += y;
        self.xx += x * x;
        self.xy += x * y;
        self.yy += y * y;
    }

    fn less(&self, earlier: &Self) -> Self {
        Self {
            count: self.count - earlier.count,
            x: self.x - earlier.x,
            y: self.y - earlier.y,
            xx: self.xx - earlier.xx,
            xy: self.xy - earlier.xy,
            yy: self.yy - earlier.yy,
        }
    }

    /// Sums of squares around the mean and around the least squares line, and the line's slope.
    fn residuals(&self) -> (f64, f64, f64) {
        if self.count == 0.0 {
            return (0.0, 0.0, 0.0);
        }
        let around_mean = (self.yy - self.y * self.y / self.count).max(0.0);
        let spread = self.xx - self.x * self.x / self.count;
        if self.count < 3.0 || spread <= 0.0 {
            return (around_mean, around_mean, 0.0);
        }
        let common = self.xy - self.x * self.y / self.count;
        let around_line = (around_mean - common * common / spread).max(0.0);
        (around_mean, around_line, common / spread)
    }

    /// Sum of squares around the best two lines that meet at the abscissa `knot`; `right` is the part
    /// from there on.
    fn residual_of_kink(&self, right: &Self, knot: f64) -> f64 {
        let n = self.count;
        // Sums with the hinge max(x - knot, 0).
        let h = right.x - knot * right.count;
        let hh = right.xx - 2.0 * knot * right.x + knot * knot * right.count;
        let xh = right.xx - knot * right.x;
        let hy = right.xy - knot * right.y;
        // Around the means.
        let (hh, xh, hy) = (hh - h * h / n, xh - self.x * h / n, hy - h * self.y / n);
        let xx = self.xx - self.x * self.x / n;
        let xy = self.xy - self.x * self.y / n;
        let yy = self.yy - self.y * self.y / n;
        let determinant = xx * hh - xh * xh;
        if determinant <= 1e-9 * xx * hh {
            return f64::INFINITY;
        }
        yy - (hh * xy * xy - 2.0 * xh * xy * hy + xx * hy * hy) / determinant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segmentation(y: &[f64], counts: &[bool]) -> Segmentation {
        let x: Vec<f64> = (0..y.len()).map(|i| i as f64).collect();
        let points = Points { x: &x, y, counts };
        Segmentation::new(
            points,
            Costs {
                variance: 1.0,
                change: 15.0,
                slope: 7.0,
                shortest: 3,
                shortest_slope: 6,
            },
        )
    }

    /// What a bounded pseudo-random sequence adds: in -1..1, mean near 0.
    fn wobble(i: usize) -> f64 {
        (i * 7919 % 101) as f64 / 50.5 - 1.0
    }

    #[test]
    fn a_step_is_found_at_its_first_point() {
        let y: Vec<f64> = (0..60)
            .map(|i| wobble(i) + if i < 23 { 0.0 } else { 9.0 })
            .collect();
        let pieces = segmentation(&y, &[true; 60]);
        let changes = pieces.changes();
        assert_eq!(changes, [23]);
        let probabilities = pieces.probabilities(&changes);
        assert!(probabilities[23] > 0.99, "{probabilities:?}");
        let others = probabilities.iter().enumerate().filter(|(i, _)| *i != 23);
        assert!(others.map(|(_, p)| *p).fold(0.0, f64::max) < 0.2);
    }

    #[test]
    fn a_break_of_slope_is_placed_where_the_lines_meet() {
        let y: Vec<f64> = (0..80_usize)
            .map(|i| wobble(i) + 0.8 * i.saturating_sub(40) as f64)
            .collect();
        let changes = segmentation(&y, &[true; 80]).changes();
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert!(changes[0].abs_diff(40) <= 2, "{changes:?}");
    }

    #[test]
    fn a_steady_slope_is_one_piece_and_told_from_a_level() {
        let rising: Vec<f64> = (0..50).map(|i| wobble(i) + 0.7 * i as f64).collect();
        let pieces = segmentation(&rising, &[true; 50]);
        assert!(pieces.changes().is_empty());
        let (base, slope) = pieces.line(0, 50);
        assert!(
            base.abs() < 0.6 && (slope - 0.7).abs() < 0.03,
            "{base} {slope}"
        );
        let flat: Vec<f64> = (0..50).map(wobble).collect();
        assert_eq!(segmentation(&flat, &[true; 50]).line(0, 50).1, 0.0);
    }

    #[test]
    fn points_that_do_not_count_change_nothing() {
        let mut y: Vec<f64> = (0..50).map(wobble).collect();
        let mut counts = vec![true; 50];
        for i in 30..34 {
            y[i] = 500.0;
            counts[i] = false;
        }
        assert!(segmentation(&y, &counts).changes().is_empty());
        counts[30..34].fill(true);
        assert_eq!(segmentation(&y, &counts).changes(), [30, 34]);
    }

    #[test]
    fn the_cheapest_segmentation_is_found() {
        // Against every way to place up to two changes.
        let y: Vec<f64> = (0..24_usize)
            .map(|i| 2.0 * wobble(i) + [0.0, 7.0, 3.0][(i >= 9) as usize + (i >= 16) as usize])
            .collect();
        let pieces = segmentation(&y, &[true; 24]);
        let price = |changes: &[usize]| {
            let cost: f64 = spans(changes, 24)
                .map(|(from, to)| pieces.cost(from, to))
                .sum();
            cost + pieces.costs.change * changes.len() as f64
        };
        let mut best = price(&[]);
        for a in 3..=21 {
            best = best.min(price(&[a]));
            for b in a + 3..=21 {
                best = best.min(price(&[a, b]));
            }
        }
        let found = pieces.choose(&(1..24).collect::<Vec<_>>());
        assert!((price(&found) - best).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn the_residual_of_a_kink_is_that_of_the_best_bent_line() {
        let bent = |x: f64| 3.0 - 0.5 * x + if x > 12.0 { 2.0 * (x - 12.0) } else { 0.0 };
        let y: Vec<f64> = (0..30).map(|i| bent(i as f64)).collect();
        let pieces = segmentation(&y, &[true; 30]);
        let whole = pieces.sums[30];
        let residual = |at: usize| {
            let right = whole.less(&pieces.sums[at]);
            whole.residual_of_kink(&right, at as f64)
        };
        assert!(residual(12).abs() < 1e-9, "{}", residual(12));
        assert!(residual(11) > 1.0 && residual(13) > 1.0);
    }
}
