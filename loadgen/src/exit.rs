//! Exit codes. The worst of a session's runs decides.

/// Everything arrived, and nothing speaks against the figures.
pub const FINE: u8 = 0;
/// Something was lost, repeated, out of order or wrong.
pub const FAULTS: u8 = 1;
/// The settings cannot be met.
pub const SETTINGS: u8 = 2;
/// Everything arrived, but the figures may not be the server's.
pub const DOUBTS: u8 = 3;
/// The run could not be made or not be finished.
pub const COULD_NOT: u8 = 4;

/// Figures did not keep to what was asked of them.
pub const THRESHOLDS: u8 = 5;

/// The code that stands for both of two runs.
pub fn worse(a: u8, b: u8) -> u8 {
    const BY_SEVERITY: [u8; 6] = [COULD_NOT, SETTINGS, FAULTS, THRESHOLDS, DOUBTS, FINE];
    BY_SEVERITY.into_iter().find(|&code| code == a || code == b).unwrap_or(COULD_NOT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_outweighs_a_doubt_and_a_dead_server_both() {
        assert_eq!(worse(DOUBTS, FAULTS), FAULTS);
        assert_eq!(worse(FAULTS, COULD_NOT), COULD_NOT);
        assert_eq!(worse(FINE, DOUBTS), DOUBTS);
        assert_eq!((worse(DOUBTS, THRESHOLDS), worse(THRESHOLDS, FAULTS)), (THRESHOLDS, FAULTS));
    }
}
