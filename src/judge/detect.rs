//! The detector as the pipeline uses it, embedded or remote: options from the settings, scratch memory per
//! thread.

use std::cell::RefCell;
use std::num::NonZeroU32;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::config::{self, InvalidSetting, Settings};
use crate::detector::{Boundary, DetectError, LastVerdict, Options, Workspace};
use crate::record::DetectorData;
use crate::remote::{RemoteDetector, RemoteError};
use crate::series::Timestamp;

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::new(Workspace::new());
}

/// Judges the newest point of a window with the v1.1 profile, which is what the tutorial's call got.
#[derive(Clone, Debug)]
pub(super) struct Detector {
    options: Options,
    /// Judges instead of the embedded detector.
    remote: Option<Arc<RemoteDetector>>,
    /// The options as every record shows them.
    pub(super) data: Arc<DetectorData>,
}

impl Detector {
    pub(super) fn from_settings(settings: &Settings) -> Result<Self, InvalidSetting> {
        let custom_interval: NonZeroU32 = settings.required(&config::DETECTOR_CUSTOM_INTERVAL)?;
        let max_anomaly_ratio: f64 = settings.required(&config::DETECTOR_MAX_ANOMALY_RATIO)?;
        if !(max_anomaly_ratio > 0.0 && max_anomaly_ratio <= 0.49) {
            let value = max_anomaly_ratio.to_string();
            let reason = "expected a share above 0 and at most 0.49";
            return Err(InvalidSetting::new(
                &config::DETECTOR_MAX_ANOMALY_RATIO,
                &value,
                reason,
            ));
        }
        let options = Options {
            granularity: settings.required(&config::DETECTOR_GRANULARITY)?,
            custom_interval,
            sensitivity: settings.required(&config::DETECTOR_SENSITIVITY)?,
            max_anomaly_ratio,
            ..Options::v1_1()
        };
        let data = DetectorData {
            version: env!("CARGO_PKG_VERSION"),
            granularity: options.granularity.as_str(),
            custom_interval: custom_interval.get(),
            sensitivity: options.sensitivity.get(),
            max_anomaly_ratio,
            boundary_version: match options.boundary {
                Boundary::V1 => "V1",
                Boundary::V2 => "V2",
                Boundary::V3 => "V3",
            },
            window_points: settings.required(&config::WINDOW_POINTS)?,
        };
        Ok(Self {
            options,
            remote: RemoteDetector::from_settings(settings)?.map(Arc::new),
            data: Arc::new(data),
        })
    }

    /// Judges the newest point of `series`. Blocks until a remote detector has answered, on whose behalf
    /// `runtime` works meanwhile.
    pub(super) fn last(
        &self,
        runtime: Option<&Handle>,
        series: &str,
        timestamps: &[Timestamp],
        values: &[f64],
    ) -> Result<Result<LastVerdict, DetectError>, RemoteError> {
        let (Some(remote), Some(runtime)) = (&self.remote, runtime) else {
            return Ok(WORKSPACE
                .with_borrow_mut(|workspace| workspace.last(timestamps, values, &self.options)));
        };
        match runtime.block_on(remote.last(series, timestamps, values, &self.options)) {
            Ok(verdict) => Ok(Ok(verdict)),
            Err(RemoteError::Refused(refusal)) => Ok(Err(refusal)),
            Err(error) => Err(error),
        }
    }

    /// The runtime that a remote detector's calls need, from within it; `None` for the embedded one.
    pub(super) fn runtime(&self) -> Option<Handle> {
        self.remote.as_ref().map(|_| Handle::current())
    }
}
