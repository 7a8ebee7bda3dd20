//! Makes the engine that the configuration asks for.

use std::time::Duration;

use accel::{Engine, EngineConfig, EngineError};

use crate::config;

/// Time spent at start on measuring each class: enough for a stable median of the slowest, and
/// half a second in all.
const CALIBRATION: Duration = Duration::from_millis(50);

/// Builds the engine and measures what its operations cost here.
///
/// # Errors
///
/// `engine = "lanes"` on a processor without them, or an engine whose first operations fail.
pub(crate) fn build(config: &config::Accel) -> Result<Engine, EngineError> {
    let engine = Engine::new(EngineConfig {
        engine: match config.engine {
            config::EngineChoice::Auto => accel::EngineChoice::Auto,
            config::EngineChoice::Lanes => accel::EngineChoice::Lanes,
            config::EngineChoice::Single => accel::EngineChoice::Single,
        },
        verify_ecdsa: config.verify_ecdsa,
        calibration: CALIBRATION,
    })?;
    Ok(if config.precompute_ecdsa {
        engine.precompute_ecdsa()
    } else {
        engine
    })
}
