//! The rows of errors about training.

use super::{CALLER, Row, SERVER, admin_row, row};
use axum::http::StatusCode as S;
use talka_node::api::{JobError, TrainingError};

pub(super) fn row_of(error: &TrainingError) -> Row {
    use TrainingError as E;
    match error {
        E::Job(_) => row(S::BAD_REQUEST, CALLER, "invalid_job"),
        E::Course(_) => row(S::BAD_REQUEST, CALLER, "invalid_data"),
        E::Memory { .. } => row(S::BAD_REQUEST, CALLER, "too_little_memory"),
        E::Busy { .. } => row(S::CONFLICT, CALLER, "running"),
        E::Differs { .. } => row(S::CONFLICT, CALLER, "job_exists"),
        E::Named { .. } => row(S::CONFLICT, CALLER, "model_exists"),
        E::NothingBefore { .. } => row(S::CONFLICT, CALLER, "nothing_before"),
        E::NoRun { .. } => row(S::NOT_FOUND, CALLER, "no_run"),
        E::NoVersion { .. } => row(S::NOT_FOUND, CALLER, "no_version"),
        E::NoOpenJob { .. } => row(S::NOT_FOUND, CALLER, "no_open_job"),
        E::Ambiguous { .. } => row(S::CONFLICT, CALLER, "ambiguous_job"),
        E::NoRecipe { .. } => row(S::SERVICE_UNAVAILABLE, SERVER, "no_recipe"),
        E::Broken { .. } => row(S::INTERNAL_SERVER_ERROR, SERVER, "training_failed"),
        E::NotRunning { .. } => row(S::CONFLICT, CALLER, "not_running"),
        E::Admin(error) => admin_row(error),
        E::File(_) => row(S::INTERNAL_SERVER_ERROR, SERVER, "store_failed"),
    }
}

/// The field of the job, or of the call, at fault.
pub(super) fn param(error: &TrainingError) -> Option<&str> {
    match error {
        TrainingError::Job(JobError::Missing { field, .. }) => Some(field),
        TrainingError::Job(JobError::Field { field, .. } | JobError::Value { field, .. }) => {
            Some(field)
        }
        TrainingError::NoRun { .. } => Some("run"),
        TrainingError::NoVersion { .. } => Some("step"),
        TrainingError::NoOpenJob { .. } | TrainingError::Ambiguous { .. } => Some("job"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ApiError;

    #[test]
    fn a_bad_job_names_its_field() {
        let field = "training_config.steps".to_owned();
        let error = JobError::Value { field, found: "0".into(), expected: "1".into() };
        let error = ApiError::from(TrainingError::from(error));
        assert_eq!((error.row().status, error.row().code), (S::BAD_REQUEST, "invalid_job"));
        assert_eq!(error.param(), Some("training_config.steps"));
    }
}
