//! Fourier transforms: the periodogram, the autocovariance, and plain transforms of any length.

use std::f64::consts::PI;
use std::fmt;
use std::sync::Arc;

use realfft::num_complex::Complex64;
use realfft::{RealFftPlanner, RealToComplex};
use rustfft::{Fft, FftPlanner};

use super::stats;

/// Transforms with their plans and buffers.
pub(super) struct Fourier {
    real: Planned<RealFftPlanner<f64>>,
    complex: Planned<FftPlanner<f64>>,
    signal: Vec<f64>,
    spectrum: Vec<Complex64>,
    scratch: Vec<Complex64>,
    window: Vec<f64>,
}

/// A planner that is started afresh before its plans take too much memory: series of ever new lengths
/// would otherwise make it grow without end.
struct Planned<P> {
    make: fn() -> P,
    planner: P,
    lengths: std::collections::HashSet<usize>,
    total: usize,
}

/// Sum of the planned lengths after which a planner is started afresh: some tens of megabytes.
const PLANNED_LENGTHS: usize = 1 << 18;

impl<P> Planned<P> {
    fn new(make: fn() -> P) -> Self {
        Self {
            make,
            planner: make(),
            lengths: std::collections::HashSet::new(),
            total: 0,
        }
    }

    fn planner(&mut self, length: usize) -> &mut P {
        if self.lengths.insert(length) {
            self.total += length;
            if self.total > PLANNED_LENGTHS {
                *self = Self::new(self.make);
                self.lengths.insert(length);
                self.total = length;
            }
        }
        &mut self.planner
    }
}

impl Default for Fourier {
    fn default() -> Self {
        Self {
            real: Planned::new(RealFftPlanner::new),
            complex: Planned::new(FftPlanner::new),
            signal: Vec::new(),
            spectrum: Vec::new(),
            scratch: Vec::new(),
            window: Vec::new(),
        }
    }
}

impl fmt::Debug for Fourier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fourier").finish_non_exhaustive()
    }
}

impl Fourier {
    /// Welch's periodogram of `x` into `power`, one value per frequency `k/length`, `k` from 1 up to
    /// `length/2`: segments of `length` that overlap by half, each without its mean and under the
    /// periodic Hann window, one-sided density.
    pub(super) fn welch(&mut self, x: &[f64], length: usize, power: &mut Vec<f64>) {
        let overlap = length / 2;
        let hop = length - overlap;
        let segments = (x.len() - overlap) / hop;
        self.hann(length);
        power.clear();
        power.resize(length / 2, 0.0);
        let weight: f64 = stats::sum(&self.window);
        for segment in 0..segments {
            let part = &x[segment * hop..segment * hop + length];
            let mean = stats::mean(part);
            self.signal.clear();
            self.signal
                .extend(part.iter().zip(&self.window).map(|(x, w)| (x - mean) * w));
            self.transform_signal();
            for (power, line) in power.iter_mut().zip(&self.spectrum[1..]) {
                *power += line.norm_sqr();
            }
        }
        let scale = 1.0 / (weight * weight * segments as f64);
        let last = power.len() - 1;
        for (k, power) in power.iter_mut().enumerate() {
            let doubled = !(length.is_multiple_of(2) && k == last);
            *power *= if doubled { 2.0 * scale } else { scale };
        }
    }

    /// Autocorrelation of `x`, whose mean is `mean`, at lags `1..=lags` into `out`; divided by n at every
    /// lag. `x` is not constant.
    pub(super) fn autocorrelation(
        &mut self,
        x: &[f64],
        mean: f64,
        lags: usize,
        out: &mut Vec<f64>,
    ) {
        // Padding by the greatest lag keeps the circular correlation from wrapping round.
        let length = fast_length(x.len() + lags);
        self.signal.clear();
        self.signal.extend(x.iter().map(|value| value - mean));
        self.signal.resize(length, 0.0);
        self.transform_signal();
        // The power spectrum is real and even, so its inverse transform is again a real forward one.
        self.signal.clear();
        self.signal
            .extend(self.spectrum.iter().map(|line| line.norm_sqr()));
        let half = self.signal.len();
        for k in (1..length - half + 1).rev() {
            let mirrored = self.signal[k];
            self.signal.push(mirrored);
        }
        self.transform_signal();
        let at_zero = self.spectrum[0].re;
        out.clear();
        out.extend(self.spectrum[1..=lags].iter().map(|line| line.re / at_zero));
    }

    /// Full spectrum of the real signal `x` into `out`, as long as `x`.
    pub(super) fn full_spectrum(&mut self, x: &[f64], out: &mut Vec<Complex64>) {
        let n = x.len();
        self.signal.clear();
        self.signal.extend_from_slice(x);
        self.transform_signal();
        out.clear();
        out.extend_from_slice(&self.spectrum);
        for k in (1..n - n / 2).rev() {
            let mirrored = out[k].conj();
            out.push(mirrored);
        }
    }

    /// Inverse transform of `x` in place, divided by its length.
    pub(super) fn inverse(&mut self, x: &mut [Complex64]) {
        let plan: Arc<dyn Fft<f64>> = self.complex.planner(x.len()).plan_fft_inverse(x.len());
        let scratch = plan.get_inplace_scratch_len();
        self.scratch
            .resize(scratch.max(self.scratch.len()), Complex64::default());
        plan.process_with_scratch(x, &mut self.scratch[..scratch]);
        let scale = 1.0 / x.len() as f64;
        for value in x {
            *value *= scale;
        }
    }

    /// Spectrum of the signal, which serves as scratch.
    fn transform_signal(&mut self) {
        let n = self.signal.len();
        let plan: Arc<dyn RealToComplex<f64>> = self.real.planner(n).plan_fft_forward(n);
        self.spectrum.resize(n / 2 + 1, Complex64::default());
        let scratch = plan.get_scratch_len();
        self.scratch
            .resize(scratch.max(self.scratch.len()), Complex64::default());
        plan.process_with_scratch(
            &mut self.signal,
            &mut self.spectrum,
            &mut self.scratch[..scratch],
        )
        .expect("the buffers are made to the plan's lengths");
    }

    fn hann(&mut self, length: usize) {
        if self.window.len() != length {
            self.window.clear();
            self.window.extend(
                (0..length).map(|j| 0.5 - 0.5 * (2.0 * PI * j as f64 / length as f64).cos()),
            );
        }
    }
}

/// The least even length from `least` on that transforms fast.
fn fast_length(least: usize) -> usize {
    let power = least.next_power_of_two().max(4);
    let threes = power / 4 * 3;
    if threes >= least { threes } else { power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_autocorrelation_is_that_of_the_definition() {
        let x: Vec<f64> = (0..100).map(|i| f64::from(i * 37 % 23)).collect();
        let mean = stats::mean(&x);
        let mut r = vec![];
        Fourier::default().autocorrelation(&x, mean, 33, &mut r);
        let at = |lag: usize| -> f64 {
            (0..100 - lag)
                .map(|t| (x[t] - mean) * (x[t + lag] - mean))
                .sum()
        };
        for lag in 1..=33 {
            assert!((r[lag - 1] - at(lag) / at(0)).abs() < 1e-14, "lag {lag}");
        }
    }

    #[test]
    fn there_and_back_at_any_length() {
        let mut fourier = Fourier::default();
        for n in [17, 18, 293] {
            let x: Vec<f64> = (0..n).map(|i| ((i * i) as f64).sin()).collect();
            let mut spectrum = vec![];
            fourier.full_spectrum(&x, &mut spectrum);
            assert_eq!(spectrum.len(), n);
            fourier.inverse(&mut spectrum);
            for (value, back) in x.iter().zip(&spectrum) {
                assert!((value - back.re).abs() < 1e-13 && back.im.abs() < 1e-13);
            }
        }
    }

    #[test]
    fn ever_new_lengths_do_not_fill_the_memory() {
        let mut planned = Planned::new(usize::default);
        for length in 1..5000 {
            planned.planner(length);
            assert!(planned.total <= PLANNED_LENGTHS.max(length));
        }
    }
}
