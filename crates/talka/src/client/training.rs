//! Asks a node about its training jobs.

use super::{Client, ClientError};
use serde_json::json;
use talka_node::api::{EstimateReport, JobFile, OpenJobReport, RunDetail, RunReport};

impl Client {
    /// All jobs, the latest first.
    pub async fn training(&self) -> Result<Vec<RunReport>, ClientError> {
        self.get("/api/training").await
    }

    /// One job with its course. A job's name needs no escape.
    pub async fn training_run(&self, name: &str) -> Result<RunDetail, ClientError> {
        self.get(&format!("/api/training/runs/{name}")).await
    }

    /// Begins a job or goes on with it.
    pub async fn train(&self, job: &JobFile) -> Result<RunReport, ClientError> {
        self.post("/api/training", &json!({ "job": job })).await
    }

    /// Jobs that members train together now.
    pub async fn training_open(&self) -> Result<Vec<OpenJobReport>, ClientError> {
        self.get("/api/training/open").await
    }

    /// What it would take to join one of them.
    pub async fn train_join_estimate(&self, job: &str) -> Result<EstimateReport, ClientError> {
        self.post("/api/training/join/estimate", &json!({ "job": job })).await
    }

    /// Takes part in one of them.
    pub async fn train_join(&self, job: &str) -> Result<RunReport, ClientError> {
        self.post("/api/training/join", &json!({ "job": job })).await
    }

    /// What a job would take.
    pub async fn train_estimate(&self, job: &JobFile) -> Result<EstimateReport, ClientError> {
        self.post("/api/training/estimate", &json!({ "job": job })).await
    }

    /// Stops a job.
    pub async fn train_stop(&self, run: &str) -> Result<RunReport, ClientError> {
        self.post("/api/training/stop", &json!({ "run": run })).await
    }

    /// Serves a version.
    pub async fn train_promote(
        &self,
        run: &str,
        step: Option<u64>,
    ) -> Result<RunReport, ClientError> {
        self.post("/api/training/promote", &json!({ "run": run, "step": step })).await
    }

    /// Serves the version before.
    pub async fn train_roll_back(&self, run: &str) -> Result<RunReport, ClientError> {
        self.post("/api/training/rollback", &json!({ "run": run })).await
    }
}
