//! Training: `/api/training`.
//!
//! Decides paths and what a body may hold. What a job says is read by the node, which names fields as its file does.

use crate::{error::ApiError, fields::Fields};
use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{get, post},
};
use serde_json::{Map, Value};
use talka_node::api::{Api, EstimateReport, OpenJobReport, RunDetail, RunReport};

/// The calls under `/api/training`.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/api/training", get(list).post(submit))
        .route("/api/training/estimate", post(estimate))
        .route("/api/training/open", get(open))
        .route("/api/training/join", post(join))
        .route("/api/training/join/estimate", post(estimate_join))
        .route("/api/training/stop", post(stop))
        .route("/api/training/promote", post(promote))
        .route("/api/training/rollback", post(roll_back))
        .route("/api/training/runs/{name}", get(show))
}

async fn list(State(api): State<Api>) -> Json<Vec<RunReport>> {
    Json(api.training())
}

async fn open(State(api): State<Api>) -> Json<Vec<OpenJobReport>> {
    Json(api.training_open())
}

async fn join(State(api): State<Api>, body: Fields) -> Result<Json<RunReport>, ApiError> {
    Ok(Json(api.train_join(&open_job(body)?).await?))
}

async fn estimate_join(
    State(api): State<Api>,
    body: Fields,
) -> Result<Json<EstimateReport>, ApiError> {
    Ok(Json(api.train_join_estimate(&open_job(body)?).await?))
}

pub(crate) fn open_job(mut body: Fields) -> Result<String, ApiError> {
    let job = body.required("job")?;
    body.finish()?;
    Ok(job)
}

async fn show(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<RunDetail>, ApiError> {
    Ok(Json(api.training_run(&name)?))
}

async fn submit(State(api): State<Api>, body: Fields) -> Result<Json<RunReport>, ApiError> {
    Ok(Json(api.train(job(body)?).await?))
}

async fn estimate(State(api): State<Api>, body: Fields) -> Result<Json<EstimateReport>, ApiError> {
    Ok(Json(api.train_estimate(job(body)?).await?))
}

pub(crate) fn job(mut body: Fields) -> Result<Value, ApiError> {
    let job = body.required::<Map<String, Value>>("job")?;
    body.finish()?;
    Ok(Value::Object(job))
}

async fn stop(State(api): State<Api>, body: Fields) -> Result<Json<RunReport>, ApiError> {
    Ok(Json(api.train_stop(&run(body)?)?))
}

async fn roll_back(State(api): State<Api>, body: Fields) -> Result<Json<RunReport>, ApiError> {
    Ok(Json(api.train_roll_back(&run(body)?).await?))
}

pub(crate) fn run(mut body: Fields) -> Result<String, ApiError> {
    let run = body.required("run")?;
    body.finish()?;
    Ok(run)
}

async fn promote(State(api): State<Api>, body: Fields) -> Result<Json<RunReport>, ApiError> {
    let (run, step) = version(body)?;
    Ok(Json(api.train_promote(&run, step).await?))
}

pub(crate) fn version(mut body: Fields) -> Result<(String, Option<u64>), ApiError> {
    let read = (body.required("run")?, body.optional("step")?);
    body.finish()?;
    Ok(read)
}
